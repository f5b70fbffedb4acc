//! Where the workspace and its build output are.

use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

/// The root of the workspace: the nearest folder, from the current one upwards, that has
/// `Cargo.toml`, `template.yaml` and `functions/`. Otherwise the one that this program was compiled
/// from.
///
/// # Errors
/// If neither exists: the program was moved away from its sources, which it needs to build and
/// deploy.
pub fn workspace_root() -> Result<PathBuf> {
    let compiled_from = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    let here = std::env::current_dir()?;
    match here.ancestors().chain(compiled_from).find(|folder| is_root(folder)) {
        Some(root) => Ok(root.to_owned()),
        None => {
            bail!("no Playhead workspace in {} or above it: run this inside a clone of the repository", here.display())
        }
    }
}

fn is_root(folder: &Path) -> bool {
    ["Cargo.toml", "template.yaml", "functions"].iter().all(|entry| folder.join(entry).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_from_a_crate_inside() {
        let root = workspace_root().unwrap();
        assert!(root.join("infra/playhead/Cargo.toml").is_file(), "{}", root.display());
    }
}
