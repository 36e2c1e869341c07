//! Notices about a disk that is full, nearly full or read-only. The disk watch in `maintenance` sends them to the
//! owner.

pub fn disk_full() -> String {
    "The disk is full. I read no messages until there is room: what you write waits at the platform and is not lost."
        .into()
}

/// The file system is running out of inodes, whatever is left of it in bytes.
pub fn names_low(names: u64) -> String {
    format!(
        "The disk has room for {names} more files only, of any size. Running turns finish; I read no new messages \
         until files are removed. They wait at the platform and are not lost."
    )
}

/// Both numbers are in MiB.
pub fn disk_low(free: u64, floor: u64) -> String {
    format!(
        "The disk is nearly full ({free} MiB left, I need {floor}). Running turns finish; I read no new \
         messages until there is room. They wait at the platform and are not lost."
    )
}

pub fn disk_read_only() -> String {
    "The disk has become read-only. I read no messages until it is writable: they wait at the platform and are not \
     lost."
        .into()
}

pub fn disk_again() -> String {
    "The disk has room again. I go on.".into()
}
