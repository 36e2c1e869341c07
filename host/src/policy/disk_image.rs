//! Computes size and layout of the file system image that enforces a disk limit. `volumes` makes and checks images
//! with it.

const MIB: u64 = 1 << 20;
/// The smallest ext4 file system with a journal.
const SMALLEST: u64 = 8 * MIB;
/// Bytes per inode: about the average of a package tree.
const BYTES_PER_NAME: u64 = 8192;
const NAMES: u64 = 4096;
const INODE: u64 = 256;
/// A block device has only whole blocks.
const BLOCK: u64 = 4096;

/// The parameters of a new file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilesystemPlan {
    pub bytes: u64,
    pub inodes: u64,
    /// The journal's size: the only part that takes space on the host's disk from the start.
    pub journal_mib: u64,
}

/// A file system with at least `limit` usable bytes and a few percent more.
///
/// The limit of an existing image is derived from its size, so changing this formula changes the limit of every
/// existing image.
pub fn shape(limit: u64) -> FilesystemPlan {
    let limit = limit.max(SMALLEST);
    let inodes = (limit / BYTES_PER_NAME).max(NAMES);
    let journal_mib = (limit / (128 * MIB)).clamp(4, 16);
    // ext4 reserves a fiftieth, at most 16 MiB, for itself; bitmaps and descriptors take the rest.
    let held_back = (limit / 50).min(16 * MIB);
    let tables = (limit / 128).min(128 * MIB) + MIB;
    let parts = [inodes.saturating_mul(INODE), journal_mib * MIB, held_back, tables];
    let bytes = parts.into_iter().fold(limit, u64::saturating_add);
    FilesystemPlan { bytes: bytes.div_ceil(BLOCK).saturating_mul(BLOCK), inodes, journal_mib }
}

/// The largest limit in MiB for which an image of this size is made.
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
