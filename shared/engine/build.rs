//! Embeds the built-in catalog: every folder under `plugins/` with a `plugin.yaml`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() -> std::io::Result<()> {
    let crate_folder = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let folder = crate_folder.join("../../plugins").canonicalize()?;
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut manifests = Vec::new();
    for entry in std::fs::read_dir(&folder)? {
        let manifest = entry?.path().join("plugin.yaml");
        if manifest.exists() {
            manifests.push(manifest);
        }
    }
    manifests.sort();
    let mut source = String::from(
        "/// The folder and the manifest of each built-in plugin.\nconst BUILT_IN: &[(&str, &str)] = &[\n",
    );
    for manifest in manifests {
        let name = manifest.parent().and_then(Path::file_name).unwrap_or_default();
        let _ = writeln!(
            source,
            "    ({:?}, include_str!({:?})),",
            name.display().to_string(),
            manifest.display().to_string()
        );
    }
    source.push_str("];\n");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    std::fs::write(out.join("built_in.rs"), source)
}
