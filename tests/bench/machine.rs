//! What the numbers were measured on.

use crate::Result;
use std::fs;
use std::process::Command;

/// Prints cores, processor, kernel, load, and the versions of what takes part.
pub(crate) fn print() -> Result<()> {
    let cores = std::thread::available_parallelism()?;
    let info = fs::read_to_string("/proc/cpuinfo")?;
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    println!("machine: {cores} cores, {}", model.map_or("unknown processor", |(_, name)| name));
    println!("kernel: {}", fs::read_to_string("/proc/sys/kernel/osrelease")?.trim());
    println!("load before: {}", fs::read_to_string("/proc/loadavg")?.trim());
    println!("{}; {}", said("git", &["--version"])?, said("nginx", &["-v"])?);
    Ok(())
}

/// The first line that a command prints, on either stream.
fn said(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    let text = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned())
}
