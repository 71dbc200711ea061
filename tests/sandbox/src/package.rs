//! The client package of CloudHSM: a real RPM, with the sandbox's shim where the vendor's library is.
//!
//! The operator's `setup` uploads it and hosts install it with their own `rpm`, so everything between a file on the
//! operator's disk and a library in a host is the field's way.

use anyhow::{Context as _, Result};
use rpm::{BuildConfig, CompressionWithLevel, FileOptions, PackageBuilder};
use sandbox_shim::Vendor;
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};

pub const NAME: &str = "cloudhsm-pkcs11";
pub const VERSION: &str = "5.17.0";
const RELEASE: &str = "1.el8";
const CONFIGURE: &str = include_str!("configure-pkcs11");
/// As installed: a client that was never told where its HSMs are.
const UNCONFIGURED: &str = "{\n  \"servers\": []\n}\n";

/// Leaves the package in `dir` and returns its path. Building takes seconds without optimisation, so the result is kept
/// beside the library under the hash of what it is made from.
pub fn place(library: &Path, dir: &Path) -> Result<PathBuf> {
    let name = format!("{NAME}-{VERSION}-{RELEASE}.x86_64.rpm");
    let path = dir.join(&name);
    let mut hash = Sha256::new();
    hash.update(std::fs::read(library).with_context(|| format!("reading {}", library.display()))?);
    hash.update(CONFIGURE);
    hash.update(UNCONFIGURED);
    let kept = library.with_file_name(format!("{NAME}-{}.rpm", &hex::encode(hash.finalize())[..16]));
    if kept.is_file() {
        std::fs::copy(&kept, &path).with_context(|| format!("copying {}", kept.display()))?;
        return Ok(path);
    }
    build(library, &path)?;
    // Someone else's target directory may not be ours to write; then the next world builds it again.
    let beside = library.with_file_name(format!(".{name}.{}", std::process::id()));
    if std::fs::copy(&path, &beside).and_then(|_| std::fs::rename(&beside, &kept)).is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    Ok(path)
}

fn build(library: &Path, path: &Path) -> Result<()> {
    let config = BuildConfig::v4().compression(CompressionWithLevel::None);
    let mut builder = PackageBuilder::new(NAME, VERSION, "AWS", "x86_64", "PKCS#11 library for AWS CloudHSM");
    builder.using_config(config).release(RELEASE).vendor("sandbox");
    for name in ["", "/bin", "/etc", "/lib", "/run"] {
        builder.with_dir_entry(FileOptions::dir(format!("/opt/cloudhsm{name}")).permissions(0o755))?;
    }
    builder
        .with_file(
            library,
            FileOptions::new(format!("/opt/cloudhsm/lib/{}", Vendor::CloudHsm.library_name())).permissions(0o755),
        )?
        .with_file_contents(CONFIGURE, FileOptions::new("/opt/cloudhsm/bin/configure-pkcs11").permissions(0o755))?
        .with_file_contents(
            UNCONFIGURED,
            FileOptions::new(Vendor::CloudHsm.config_path()).permissions(0o644).config().noreplace(),
        )?;
    let package = builder.build().context("building the client package")?;
    package.write_file(path).with_context(|| format!("writing {}", path.display()))
}
