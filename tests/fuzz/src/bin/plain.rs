//! Runs the same fuzz targets without coverage, for machines on which libFuzzer cannot be built. It runs every seed
//! unchanged, and then random changes of seeds. `plain TARGET CORPUS CRASHES SECONDS`

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The maximum length of an input.
const LONGEST: usize = 4096;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [name, corpus, crashes, seconds] => run(name, Path::new(corpus), Path::new(crashes), seconds),
        _ => {
            eprintln!("usage: plain TARGET CORPUS CRASHES SECONDS");
            ExitCode::from(2)
        }
    }
}

fn run(name: &str, corpus: &Path, crashes: &Path, seconds: &str) -> ExitCode {
    let (Some(target), Ok(seconds), Ok(files)) = (fuzz::target(name), seconds.parse(), corpus.read_dir())
    else {
        eprintln!(
            "there is no target {name}, {} cannot be read, or {seconds} is not a number of seconds",
            corpus.display()
        );
        return ExitCode::from(2);
    };
    let seeds: Vec<Vec<u8>> = files.flatten().filter_map(|file| std::fs::read(file.path()).ok()).collect();
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut runs = 0u64;
    while runs < seeds.len() as u64 || Instant::now() < until {
        let input = match seeds.get(runs as usize) {
            Some(seed) => seed.clone(),
            None => changed(&seeds),
        };
        runs += 1;
        if std::panic::catch_unwind(|| target(&input)).is_err() {
            let path = crashes.join(format!("{name}-{:016x}", fastrand::u64(..)));
            // If the write fails, the report still shows the bytes.
            let _ = std::fs::write(&path, &input);
            eprintln!("Test unit written to {}\n{}", path.display(), input.escape_ascii());
            return ExitCode::FAILURE;
        }
    }
    eprintln!("#{runs} DONE cov: 0 corp: {}/0b", seeds.len());
    ExitCode::SUCCESS
}

/// Changes a seed in a few places: it changes or inserts a byte, removes or repeats a piece, or inserts a piece of
/// another seed.
fn changed(seeds: &[Vec<u8>]) -> Vec<u8> {
    let Some(seed) = fastrand::choice(seeds) else { return vec![fastrand::u8(..); fastrand::usize(..64)] };
    let mut bytes = seed.clone();
    for _ in 0..fastrand::usize(1..8) {
        let at = fastrand::usize(..=bytes.len());
        let end = (at + fastrand::usize(..16)).min(bytes.len());
        match fastrand::u8(..5) {
            0 => bytes.insert(at, fastrand::u8(..)),
            1 if at < bytes.len() => bytes[at] ^= 1 << fastrand::u8(..8),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {
                let other = fastrand::choice(seeds).map_or(&[][..], Vec::as_slice);
                let from = fastrand::usize(..=other.len());
                let to = (from + fastrand::usize(..64)).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
    bytes.truncate(LONGEST);
    bytes
}
