//! Little-endian integers at an offset of the arena.

#[inline]
pub fn read_u64(memory: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(memory, at))
}

#[inline]
pub fn read_u32(memory: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(memory, at))
}

#[inline]
pub fn write_u64(memory: &mut [u8], at: usize, value: u64) {
    memory[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

#[inline]
pub fn write_u32(memory: &mut [u8], at: usize, value: u32) {
    memory[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

#[inline]
fn array<const N: usize>(memory: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&memory[at..at + N]);
    bytes
}
