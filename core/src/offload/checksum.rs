//! The Internet checksum (RFC 1071), and how it changes with a part of what it covers (RFC 1624).
use super::PartialChecksum;

/// The ones' complement sum of `bytes` as 16-bit words, an odd last byte with a zero behind it; not yet folded.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let (words, last) = bytes.as_chunks::<2>();
    let even: u64 = words.iter().map(|word| u64::from(u16::from_be_bytes(*word))).sum();
    even + last.first().map_or(0, |byte| u64::from(*byte) << 8)
}

/// A sum in 16 bits.
pub(crate) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// A sum of which one 16-bit word was `old` and is `new`.
pub(crate) fn replace(sum: u16, old: u16, new: u16) -> u16 {
    fold(u64::from(sum) + u64::from(!old) + u64::from(new))
}

/// Completes a checksum that is only begun. False: it lies outside of the packet.
pub fn finish(packet: &mut [u8], partial: PartialChecksum) -> bool {
    let start = usize::from(partial.start);
    let field = start + usize::from(partial.offset);
    let Some(covered) = packet.get(start..) else { return false };
    let value = complete(sum(covered));
    let Some(place) = packet.get_mut(field..field + 2) else { return false };
    place.copy_from_slice(&value.to_be_bytes());
    true
}

/// What stands in the field for this sum. Zero would mean "none" (RFC 768), and its other form means the same.
pub(crate) fn complete(sum: u64) -> u16 {
    match !fold(sum) {
        0 => 0xffff,
        value => value,
    }
}
