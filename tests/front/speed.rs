//! How fast a body goes out; run by hand: `cargo test --test front speed -- --ignored --nocapture`.

use crate::support::{Stage, get, of_status};
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

/// One GiB, as in DESIGN's measurements.
const SIZE: u64 = 1 << 30;

#[test]
#[ignore = "a measurement"]
fn seconds_per_gibibyte() {
    let stage = Stage::new();
    for path in ["/chunks", "/worker", "/known"] {
        let mut client = stage.connect();
        let began = Instant::now();
        client.send(get(&format!("{path}?{SIZE}")));
        let mut buffer = vec![0; 1 << 20];
        let mut left = SIZE;
        while left > 0 {
            left = left.saturating_sub(client.stream.read(&mut buffer).unwrap() as u64);
        }
        println!("{path}: {:?} per GiB", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(60));
    }
    println!("resident: {} KiB at most", of_status(Path::new("/proc/self/status"), "VmHWM:"));
}
