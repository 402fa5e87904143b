//! Every public item of the crate, as `docs/public-api.txt` lists it: who changes the API changes
//! that file on purpose. To write it anew:
//!
//! ```text
//! UPDATE_PUBLIC_API=1 cargo test --all-features --test public_api
//! ```
//!
//! The list is read off the source text, so it does not depend on a compiler's version. It holds
//! what is written there: derives by name, and not what the compiler implements by itself (`Send`).

#[cfg(test)]
mod print;
#[cfg(test)]
mod tree;

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, env, fs, path::Path};

    const UPDATE: &str = "UPDATE_PUBLIC_API";

    #[test]
    fn the_public_api_is_the_listed_one() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let file = root.join("docs/public-api.txt");
        let actual = crate::tree::list(root);
        if env::var_os(UPDATE).is_some() {
            fs::write(&file, actual).unwrap();
            return;
        }
        let listed = fs::read_to_string(&file).unwrap();
        let (before, after) = (in_context(&listed), in_context(&actual));
        let gone = before.difference(&after).map(|line| format!("- {line}\n"));
        let new = after.difference(&before).map(|line| format!("+ {line}\n"));
        let difference: String = gone.chain(new).collect();
        assert!(
            listed == actual,
            "the public API is not what {} lists:\n\n{difference}\n\
         If that is meant: {UPDATE}=1 cargo test --all-features --test public_api",
            file.display()
        );
    }

    /// Each line behind those that it is indented under.
    fn in_context(list: &str) -> BTreeSet<String> {
        let mut above: Vec<(usize, &str)> = Vec::new();
        let mut lines = BTreeSet::new();
        for line in list.lines().filter(|line| !line.is_empty()) {
            let indent = line.len() - line.trim_start().len();
            above.retain(|(other, _)| *other < indent);
            above.push((indent, line.trim_start()));
            lines.insert(
                above
                    .iter()
                    .map(|(_, line)| *line)
                    .collect::<Vec<_>>()
                    .join(" | "),
            );
        }
        lines
    }
}
