//! Licences and sources of all dependencies, as `deny.toml` allows them, without `cargo deny`.
//!
//! Sources are read in the lock files, and so for every platform; licences are those of what this
//! platform and all features need. `cargo deny check` looks at all platforms.

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path, process::Command};

    const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

    fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR"))
    }

    /// The strings of the one list in `deny.toml` that begins with `allow = [`.
    fn allowed() -> Vec<String> {
        let text = fs::read_to_string(root().join("deny.toml")).unwrap();
        let (_, behind) = text.split_once("\nallow = [\n").unwrap();
        let (list, _) = behind.split_once("\n]").unwrap();
        let entries = list.lines().map(|line| line.trim().trim_end_matches(','));
        entries
            .map(|entry| entry.trim_matches('"').to_owned())
            .collect()
    }

    /// Whether one way to read an SPDX expression needs nothing but what is allowed.
    fn is_allowed(expression: &str, allowed: &[String]) -> bool {
        // What older packages write for "or".
        let text = expression
            .replace('/', " OR ")
            .replace('(', " ( ")
            .replace(')', " ) ");
        let mut words: Vec<&str> = text.split_whitespace().rev().collect();
        let holds = either(&mut words, allowed);
        assert!(words.is_empty(), "{expression}");
        holds
    }

    fn either(words: &mut Vec<&str>, allowed: &[String]) -> bool {
        let mut holds = both(words, allowed);
        while words.pop_if(|word| *word == "OR").is_some() {
            holds |= both(words, allowed);
        }
        holds
    }

    fn both(words: &mut Vec<&str>, allowed: &[String]) -> bool {
        let mut holds = one(words, allowed);
        while words.pop_if(|word| *word == "AND").is_some() {
            holds &= one(words, allowed);
        }
        holds
    }

    fn one(words: &mut Vec<&str>, allowed: &[String]) -> bool {
        match words.pop().unwrap() {
            "(" => {
                let holds = either(words, allowed);
                assert_eq!(words.pop(), Some(")"));
                holds
            }
            licence => {
                // An exception only ever gives more.
                if words.pop_if(|word| *word == "WITH").is_some() {
                    words.pop().unwrap();
                }
                allowed.iter().any(|own| own == licence)
            }
        }
    }

    #[test]
    fn every_licence_is_one_that_asks_for_no_more_than_to_be_named() {
        let cargo = env::var_os("CARGO").unwrap();
        let version = Command::new(&cargo).arg("-vV").output().unwrap();
        let version = String::from_utf8(version.stdout).unwrap();
        let host = version
            .lines()
            .find_map(|line| line.strip_prefix("host: "))
            .unwrap();
        let output = Command::new(&cargo)
            .args(["metadata", "--locked", "--offline", "--all-features"])
            .args(["--format-version=1", "--filter-platform", host])
            .current_dir(root())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let packages = metadata["packages"].as_array().unwrap();
        assert!(packages.len() > 100, "{}", packages.len());

        let allowed = allowed();
        let refused: Vec<String> = packages
            .iter()
            .filter(|package| {
                !package["license"]
                    .as_str()
                    .is_some_and(|licence| is_allowed(licence, &allowed))
            })
            .map(|package| format!("{}: {}", package["id"], package["license"]))
            .collect();
        assert!(refused.is_empty(), "deny.toml does not allow {refused:#?}");
    }

    #[test]
    fn everything_comes_from_the_one_registry() {
        for file in [
            "Cargo.lock",
            "fuzz/Cargo.lock",
            "tests/interop/rust/Cargo.lock",
        ] {
            let text = fs::read_to_string(root().join(file)).unwrap();
            let mut own = 0;
            for package in text.split("[[package]]").skip(1) {
                let source = package
                    .lines()
                    .find_map(|line| line.strip_prefix("source = "));
                match source {
                    Some(source) => {
                        assert_eq!(source.trim_matches('"'), REGISTRY, "{file}: {package}");
                    }
                    // By path: this crate, and the package that depends on it.
                    None => own += 1,
                }
                let checksum = package.lines().any(|line| line.starts_with("checksum = "));
                assert_eq!(checksum, source.is_some(), "{file}: {package}");
            }
            assert!(
                (1..=2).contains(&own),
                "{file}: {own} packages are of no registry"
            );
        }
    }

    #[test]
    fn an_expression_is_read_as_it_is_written() {
        let allowed = ["MIT".to_owned(), "Zlib".to_owned()];
        let yes = [
            "MIT",
            "MIT OR GPL-3.0",
            "GPL-3.0/MIT",
            "MIT AND Zlib",
            "(GPL-3.0 OR MIT) AND Zlib",
            "GPL-3.0 WITH Classpath-exception-2.0 OR MIT",
        ];
        let no = [
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(MIT OR Zlib) AND GPL-3.0",
            "MIT-0",
            "GPL-3.0 AND Zlib OR GPL-2.0",
        ];
        assert!(yes.iter().all(|text| is_allowed(text, &allowed)));
        assert!(!no.iter().any(|text| is_allowed(text, &allowed)));
    }
}
