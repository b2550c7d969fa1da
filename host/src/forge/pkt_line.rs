//! Git's pkt-line framing: four hexadecimal digits of length, then the data.
//!
//! Reads what a client sends before git sees it, and writes the few answers that the forge gives itself. Never allocates by
//! a length that a peer claims. Format: gitprotocol-common(5).

/// Longest packet, with its four digits of length. Source: `LARGE_PACKET_MAX` in git's `pkt-line.h`.
pub(super) const MAX_PACKET: usize = 65_520;

/// The flush packet.
pub(super) const FLUSH: &[u8] = b"0000";

/// One packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packet<'a> {
    /// `0000`: the end of a list.
    Flush,
    /// `0001`: protocol v2 only.
    Delimiter,
    /// `0002`: protocol v2 only.
    ResponseEnd,
    /// Data, possibly empty, with its final newline if it has one.
    Data(&'a [u8]),
}

/// Bytes that are no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PacketError {
    /// The first four bytes are not hexadecimal digits.
    #[error("a packet begins with four hexadecimal digits")]
    Digits,
    /// The length is 3 or over the limit.
    #[error("no packet has a length of {length}")]
    Length {
        /// The claimed length.
        length: usize,
    },
}

/// Reads the packet at the beginning of `bytes`. Returns it with the number of bytes it takes, or `None` where more bytes
/// are needed.
pub(super) fn read(bytes: &[u8]) -> Result<Option<(Packet<'_>, usize)>, PacketError> {
    let Some((digits, _)) = bytes.split_first_chunk::<4>() else {
        // Garbage is refused at once, not when a fourth byte has come.
        return if bytes.iter().all(u8::is_ascii_hexdigit) { Ok(None) } else { Err(PacketError::Digits) };
    };
    let mut length = 0;
    for digit in digits {
        let value = char::from(*digit).to_digit(16).ok_or(PacketError::Digits)?;
        length = length * 16 + value as usize;
    }
    match length {
        0 => Ok(Some((Packet::Flush, 4))),
        1 => Ok(Some((Packet::Delimiter, 4))),
        2 => Ok(Some((Packet::ResponseEnd, 4))),
        4..=MAX_PACKET => Ok(bytes.get(4..length).map(|data| (Packet::Data(data), length))),
        _ => Err(PacketError::Length { length }),
    }
}

/// Appends data as one packet; data that does not fit is cut to what fits.
pub(super) fn write(out: &mut Vec<u8>, data: &[u8]) {
    let data = &data[..data.len().min(MAX_PACKET - 4)];
    out.extend_from_slice(format!("{:04x}", data.len() + 4).as_bytes());
    out.extend_from_slice(data);
}

/// Appends a stream as side-band packets on `band`, none longer than `longest` with its length and band.
pub(super) fn write_band(out: &mut Vec<u8>, band: u8, stream: &[u8], longest: usize) {
    let room = longest.clamp(6, MAX_PACKET) - 5;
    for piece in stream.chunks(room) {
        let mut data = Vec::with_capacity(piece.len() + 1);
        data.push(band);
        data.extend_from_slice(piece);
        write(out, &data);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn packets_of_every_kind_are_read() {
        assert_eq!(read(b"0000rest"), Ok(Some((Packet::Flush, 4))));
        assert_eq!(read(b"0001"), Ok(Some((Packet::Delimiter, 4))));
        assert_eq!(read(b"0002"), Ok(Some((Packet::ResponseEnd, 4))));
        assert_eq!(read(b"0004"), Ok(Some((Packet::Data(b""), 4))));
        assert_eq!(read(b"000Ahello\nx"), Ok(Some((Packet::Data(b"hello\n"), 10))));
        assert_eq!(read(b"000ahell"), Ok(None));
        assert_eq!(read(b"00"), Ok(None));
        assert_eq!(read(b""), Ok(None));
    }

    #[test]
    fn what_is_no_packet_is_refused() {
        for bytes in [&b"GET "[..], b"0x0a", b"+001", b"-1", b" ", b"00g"] {
            assert_eq!(read(bytes), Err(PacketError::Digits), "{bytes:?}");
        }
        assert_eq!(read(b"0003"), Err(PacketError::Length { length: 3 }));
        assert_eq!(read(b"fff1"), Err(PacketError::Length { length: 0xfff1 }));
        assert_eq!(read(b"ffff"), Err(PacketError::Length { length: 0xffff }));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(data in proptest::collection::vec(any::<u8>(), 0..3000), rest in any::<[u8; 3]>()) {
            let mut bytes = Vec::new();
            write(&mut bytes, &data);
            let length = bytes.len();
            for cut in 0..length {
                prop_assert_eq!(read(&bytes[..cut]), Ok(None));
            }
            bytes.extend_from_slice(&rest);
            prop_assert_eq!(read(&bytes), Ok(Some((Packet::Data(&data), length))));
        }

        #[test]
        fn a_band_holds_the_whole_stream(data in proptest::collection::vec(any::<u8>(), 0..5000), longest in 0usize..1200) {
            let mut bytes = Vec::new();
            write_band(&mut bytes, 1, &data, longest);
            let mut found = Vec::new();
            let mut at = 0;
            while let Some((Packet::Data(piece), used)) = read(&bytes[at..]).unwrap() {
                prop_assert!(used <= longest.max(6));
                prop_assert_eq!(piece[0], 1);
                found.extend_from_slice(&piece[1..]);
                at += used;
            }
            prop_assert_eq!(found, data);
        }

        #[test]
        fn no_bytes_make_the_reader_fail_otherwise(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Some((_, used))) = read(&bytes) {
                prop_assert!(used >= 4 && used <= bytes.len());
            }
        }
    }
}
