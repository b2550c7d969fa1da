//! The guest program, PID 1 of every sandbox, as the build script made it: static, stripped, part of this binary.
//!
//! The launcher writes it to a sealed memfd and executes that; nothing of it lies in an image or on the disk.

/// The ELF file.
pub fn bytes() -> &'static [u8] {
    include_bytes!(env!("OSTLER_GUEST_IMAGE"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_guest_is_a_static_program() {
        let image = super::bytes();
        assert_eq!(&image[..5], b"\x7fELF\x02");
        let number = |offset: usize, bytes: usize| {
            image[offset..offset + bytes].iter().rev().fold(0usize, |value, byte| value << 8 | usize::from(*byte))
        };
        // The program headers: where, size of one, how many. One of type 3 would name a loader.
        let (start, size, count) = (number(32, 8), number(54, 2), number(56, 2));
        assert!(count > 0);
        for header in 0..count {
            assert_ne!(number(start + header * size, 4), 3, "the guest was linked dynamically");
        }
        assert!(image.len() < 4 * 1024 * 1024, "the guest has {} bytes", image.len());
    }
}
