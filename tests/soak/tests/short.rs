//! A soak test of a few seconds, so that `cargo test` notices when it fails.

#[cfg(test)]
mod tests {
    use std::process::Command;

    #[test]
    fn a_short_soak_passes() {
        let status = Command::new(env!("CARGO_BIN_EXE_soak"))
            .args(["--for", "5s"])
            .status();
        assert!(status.unwrap().success());
    }
}
