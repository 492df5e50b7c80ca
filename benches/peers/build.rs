//! Hands the compiler's version to the report.

use std::{env, process::Command};

fn main() {
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let version = Command::new(rustc)
        .arg("--version")
        .output()
        .map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned())
        .unwrap_or_else(|_| "rustc, version unknown".into());
    println!("cargo::rustc-env=TOOLCHAIN={version}");
    println!("cargo::rerun-if-changed=build.rs");
}
