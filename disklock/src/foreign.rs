//! What else a device or file may carry: `format` does not overwrite it unasked (DESIGN section 3).

/// Bytes at a fixed place.
struct Signature {
    name: &'static str,
    offset: usize,
    magic: &'static [u8],
}

const fn at(offset: usize, magic: &'static [u8], name: &'static str) -> Signature {
    Signature { name, offset, magic }
}

/// The more telling first: an MBR signature is also in boot sectors of file systems.
const SIGNATURES: &[Signature] = &[
    at(0, b"XFSB", "an XFS file system"),
    at(1080, &[0x53, 0xef], "an ext2, ext3 or ext4 file system"),
    at(65_600, b"_BHRfS_M", "a btrfs file system"),
    at(65_536, &[0x01, 0x16, 0x19, 0x70], "a GFS2 file system"),
    at(1024, b"OCFSV2", "an OCFS2 file system"),
    at(2048, b"OCFSV2", "an OCFS2 file system"),
    at(4096, b"OCFSV2", "an OCFS2 file system"),
    at(8192, b"OCFSV2", "an OCFS2 file system"),
    at(1024, &[0x10, 0x20, 0xf5, 0xf2], "an F2FS file system"),
    at(4120, &[0xc6, 0x85, 0x73, 0xf6], "a bcache device or bcachefs file system"),
    at(3, b"NTFS    ", "an NTFS file system"),
    at(82, b"FAT32   ", "a FAT file system"),
    at(54, b"FAT1", "a FAT file system"),
    at(3, b"EXFAT   ", "an exFAT file system"),
    at(32_769, b"CD001", "an ISO 9660 file system"),
    at(0, b"hsqs", "a squashfs file system"),
    at(0, b"LUKS\xba\xbe", "a LUKS volume"),
    at(0, b"LABELONE", "an LVM physical volume"),
    at(512, b"LABELONE", "an LVM physical volume"),
    at(1024, b"LABELONE", "an LVM physical volume"),
    at(1536, b"LABELONE", "an LVM physical volume"),
    at(0, &[0xfc, 0x4e, 0x2b, 0xa9], "a member of an MD RAID array"),
    at(4096, &[0xfc, 0x4e, 0x2b, 0xa9], "a member of an MD RAID array"),
    at(4086, b"SWAPSPACE2", "swap space"),
    at(4086, b"SWAP-SPACE", "swap space"),
    at(65_526, b"SWAPSPACE2", "swap space"),
    at(0, &[0x10, 0x20, 0x21, 0x12], "a sanlock lockspace"),
    at(0, &[0x10, 0x20, 0x15, 0x06], "a sanlock resource lease"),
    at(512, b"EFI PART", "a GPT partition table"),
    at(4096, b"EFI PART", "a GPT partition table"),
    at(510, &[0x55, 0xaa], "a partition table or boot sector"),
];

/// Names what the first bytes of a device or file belong to.
pub(crate) fn identify(head: &[u8]) -> Option<&'static str> {
    SIGNATURES.iter().find(|s| head.get(s.offset..s.offset + s.magic.len()) == Some(s.magic)).map(|s| s.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signature_is_found_at_its_place_and_nothing_in_zeros() {
        let mut head = vec![0; 1 << 17];
        assert_eq!(identify(&head), None);
        for s in SIGNATURES {
            head[s.offset..s.offset + s.magic.len()].copy_from_slice(s.magic);
            assert_eq!(identify(&head), Some(s.name));
            head.fill(0);
        }
        assert_eq!(identify(b"XF"), None);
    }
}
