//! Decodes a picture in a process of its own: whatever a decoder does with a hostile file, it has a time limit and
//! bounded memory, and its end is not the runner's.

use std::fs::File;

#[cfg(not(test))]
pub async fn decode(file: File) -> Result<Vec<u8>, String> {
    use std::process::Stdio;
    use std::time::Duration;

    const LIMIT: Duration = Duration::from_secs(30);

    let child = tokio::process::Command::new("/proc/self/exe")
        .arg("fit-picture")
        .stdin(Stdio::from(file))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| format!("its decoder cannot start: {e}"))?;
    let ended = tokio::time::timeout(LIMIT, child.wait_with_output());
    let output = ended
        .await
        .map_err(|_| format!("it takes more than {} s to decode", LIMIT.as_secs()))?
        .map_err(|e| e.to_string())?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let why = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(1) => Err(why.trim().to_owned()),
        _ => Err("its decoder broke down".to_owned()),
    }
}

/// The test program is not the runner, so unit tests decode on a thread.
#[cfg(test)]
pub async fn decode(file: File) -> Result<Vec<u8>, String> {
    super::blocking(move || super::picture::fit(file)).await
}
