//! Keys that are not text travel in base64: the usual alphabet, padded.

/// Decodes `text` into `key`; the length, or `None` if it is no base64 or too long.
pub fn decode(text: &[u8], key: &mut [u8]) -> Option<usize> {
    if text.is_empty() || !text.len().is_multiple_of(4) {
        return None;
    }
    let pad = text.iter().rev().take(2).take_while(|&&byte| byte == b'=').count();
    let length = text.len() / 4 * 3 - pad;
    if length > key.len() {
        return None;
    }
    for (number, four) in text.chunks_exact(4).enumerate() {
        let is_last = (number + 1) * 4 == text.len();
        let mut bits = 0u32;
        for (place, &letter) in four.iter().enumerate() {
            let six = match letter {
                b'=' if is_last && place >= 4 - pad => 0,
                _ => value(letter)?,
            };
            bits = bits << 6 | six;
        }
        let bytes = bits.to_be_bytes();
        let at = number * 3;
        let end = length.min(at + 3);
        key[at..end].copy_from_slice(&bytes[1..1 + end - at]);
    }
    Some(length)
}

/// Appends `key` in base64.
pub fn encode(key: &[u8], out: &mut Vec<u8>) {
    for three in key.chunks(3) {
        let bits = three.iter().fold(0u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let six = bits >> (18 - 6 * place) & 63;
            out.push(if place <= three.len() { ALPHABET[six as usize] } else { b'=' });
        }
    }
}

fn value(letter: u8) -> Option<u32> {
    Some(u32::from(match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_again() {
        for (plain, text) in [("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("テスト", "44OG44K544OI")] {
            let (mut encoded, mut key) = (Vec::new(), [0; 250]);
            encode(plain.as_bytes(), &mut encoded);
            assert_eq!(encoded, text.as_bytes());
            let length = decode(text.as_bytes(), &mut key).unwrap();
            assert_eq!(&key[..length], plain.as_bytes());
        }
        let every: Vec<u8> = (0..=255).collect();
        let (mut encoded, mut key) = (Vec::new(), [0; 256]);
        encode(&every, &mut encoded);
        assert_eq!(decode(&encoded, &mut key), Some(256));
        assert_eq!(key.as_slice(), every);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "Zg=", "Zg", "Z===", "=Zg=", "Zg==Zg==", "Zm 9", "Zm9v\u{e9}v"] {
            assert_eq!(decode(text.as_bytes(), &mut [0; 250]), None, "{text}");
        }
        assert_eq!(decode(b"Zm9v", &mut [0; 2]), None, "longer than there is room");
    }
}
