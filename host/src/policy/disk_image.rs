//! How large the image of a file system is that holds a limit's worth of files, and what it is made of.

const MIB: u64 = 1 << 20;
/// ext4 with a journal is not made smaller.
const SMALLEST: u64 = 8 * MIB;
/// One file or folder for so many bytes: a package tree's are about as large.
const BYTES_PER_NAME: u64 = 8192;
const NAMES: u64 = 4096;
/// What an inode takes.
const INODE: u64 = 256;
/// Of a block device, whole blocks are used.
const BLOCK: u64 = 4096;

/// A file system, before it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub bytes: u64,
    /// Files and folders that fit in.
    pub inodes: u64,
    /// Its journal: the part of it that takes room of the host's disk from the beginning.
    pub journal_mib: u64,
}

/// The file system in which `limit` bytes are usable, and a few in a hundred more.
///
/// An image is of this limit if it is of this size: another rule here would make every image there is one of another
/// limit.
pub fn shape(limit: u64) -> Shape {
    let limit = limit.max(SMALLEST);
    let inodes = (limit / BYTES_PER_NAME).max(NAMES);
    let journal_mib = (limit / (128 * MIB)).clamp(4, 16);
    // ext4 holds back a fiftieth, at most 16 MiB, for its own bookkeeping; bitmaps, descriptors and room for more of
    // them take the rest.
    let held_back = (limit / 50).min(16 * MIB);
    let tables = (limit / 128).min(128 * MIB) + MIB;
    let parts = [inodes.saturating_mul(INODE), journal_mib * MIB, held_back, tables];
    let bytes = parts.into_iter().fold(limit, u64::saturating_add);
    Shape { bytes: bytes.div_ceil(BLOCK).saturating_mul(BLOCK), inodes, journal_mib }
}

/// The largest limit, in MiB, that an image of this size was made for.
pub fn limit_mib(bytes: u64) -> u64 {
    let (mut fits, mut too_large) = (0, bytes / MIB + 1);
    while too_large - fits > 1 {
        let middle = fits.midpoint(too_large);
        if shape(middle * MIB).bytes <= bytes {
            fits = middle;
        } else {
            too_large = middle;
        }
    }
    fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_was_made_once_is_still_one_of_its_limit() {
        let of = |mib: u64| {
            let shape = shape(mib * MIB);
            (shape.bytes, shape.inodes, shape.journal_mib)
        };
        assert_eq!(of(64), (76_316_672, 8192, 4));
        assert_eq!(of(256), (289_533_952, 32_768, 4));
        assert_eq!(of(2048), (2_265_972_736, 262_144, 16));
        assert_eq!(of(1), of(8), "there is a smallest one");
    }

    #[test]
    fn a_limit_is_read_from_its_image() {
        for mib in [8, 9, 64, 255, 256, 2048, 100_000] {
            assert_eq!(limit_mib(shape(mib * MIB).bytes), mib);
        }
        assert_eq!(limit_mib(0), 0);
        assert!(shape(u64::MAX).bytes >= u64::MAX - BLOCK);
    }
}
