//! How a program asks for a table over the Unix socket, and what it is answered: bytes only.
//!
//!   program -> server   | "spinetL0" | layout u32 | tenant's length u8 | 0 × 3 | tenant, 48 bytes |    64 bytes
//!   server -> program   | "spinetL0" | layout u32 | status u32 | tables u16 | 0 u16 | length of text u32 | text
//!
//! With status 0 the descriptors come along: of liveness, of the reader's reports, and of the tables. The text
//! then says where the appliance itself is asked, as words `native=ADDRESS shm=PATH`; otherwise it is the
//! reason. The connection stays open as long as the reader reads: its end tells the server that it is gone.

use crate::l0::layout::{LAYOUT_VERSION, MAGIC};

/// What a program asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The layout it reads.
    pub layout: u32,
    /// The tenant.
    pub tenant: String,
}

/// What it is answered, beside descriptors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Tables that come along, or none: refused.
    pub tables: Option<u16>,
    /// Addresses, or the reason.
    pub text: String,
}

impl Wish {
    /// As bytes. Names are cut to what fits, and then found by nobody.
    pub fn encode(&self) -> [u8; WISH_BYTES] {
        let mut bytes = [0; WISH_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&self.layout.to_le_bytes());
        let name = &self.tenant.as_bytes()[..self.tenant.len().min(TENANT_BYTES_MAX)];
        bytes[12] = name.len() as u8;
        bytes[16..16 + name.len()].copy_from_slice(name);
        bytes
    }

    /// From bytes; `None` if they are no wish.
    pub fn decode(bytes: &[u8; WISH_BYTES]) -> Option<Wish> {
        let length = bytes[12] as usize;
        if bytes[..8] != *MAGIC || length > TENANT_BYTES_MAX {
            return None;
        }
        let layout = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        Some(Wish { layout, tenant: String::from_utf8(bytes[16..16 + length].to_vec()).ok()? })
    }
}

impl Answer {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let text = &self.text.as_bytes()[..self.text.len().min(ANSWER_BYTES_MAX - ANSWER_HEADER_BYTES)];
        let mut bytes = Vec::from(*MAGIC);
        bytes.extend(LAYOUT_VERSION.to_le_bytes());
        bytes.extend(u32::from(self.tables.is_none()).to_le_bytes());
        bytes.extend(self.tables.unwrap_or(0).to_le_bytes());
        bytes.extend([0; 2]);
        bytes.extend((text.len() as u32).to_le_bytes());
        bytes.extend(text);
        bytes
    }

    /// From bytes; `None` if they are no answer.
    pub fn decode(bytes: &[u8]) -> Option<Answer> {
        let header = bytes.get(..ANSWER_HEADER_BYTES)?;
        let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if header[..8] != *MAGIC {
            return None;
        }
        let text = bytes.get(ANSWER_HEADER_BYTES..)?.get(..number(20) as usize)?;
        Some(Answer {
            tables: (number(12) == 0).then_some(number(16) as u16),
            text: String::from_utf8_lossy(text).into_owned(),
        })
    }
}

/// Bytes of a wish.
pub const WISH_BYTES: usize = 64;
/// Longest name of a tenant.
pub const TENANT_BYTES_MAX: usize = 48;
/// Longest answer.
pub const ANSWER_BYTES_MAX: usize = 1024;
const ANSWER_HEADER_BYTES: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_and_answers_survive_the_wire() {
        let wish = Wish { layout: 7, tenant: "ads".to_string() };
        assert_eq!(Wish::decode(&wish.encode()), Some(wish));
        let granted = Answer { tables: Some(2), text: "native=127.0.0.1:1".to_string() };
        let refused = Answer { tables: None, text: "no such tenant".to_string() };
        for answer in [granted, refused] {
            assert_eq!(Answer::decode(&answer.encode()), Some(answer));
        }
    }

    #[test]
    fn anything_else_is_neither() {
        let mut wish = Wish { layout: 1, tenant: "a".to_string() }.encode();
        wish[12] = 49;
        assert_eq!(Wish::decode(&wish), None);
        assert_eq!(Wish::decode(&[0; WISH_BYTES]), None);
        let answer = Answer { tables: Some(1), text: "text".to_string() }.encode();
        assert!((0..answer.len()).all(|length| Answer::decode(&answer[..length]).is_none()));
    }
}
