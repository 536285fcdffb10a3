//! Bytes to server-sent events, as the WHATWG's HTML standard has it (section 9.2.6), without I/O.
//!
//!   id: 7-12\n          a field: name, colon, one space that does not count, value
//!   data: {"a":1,\r\n   lines end with LF, CR or CRLF, whichever comes
//!   data: "b":2}\r      further data go on in a line of their own
//!   : thump\n           a comment: a sign of life
//!   \n                  an empty line: the event is told
//!
//! Bounded by [`limits::TOP_EVENT_BYTES_MAX`], for a line and for the data of an event. A crate would do
//! as well; those there are bring streams and regular expressions, and none bounds a line.

use crate::base::limits;

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its type; `message` where none was given.
    pub kind: String,
    /// Its data, lines joined by LF.
    pub data: String,
}

/// A line, or the data of an event, that goes beyond [`limits::TOP_EVENT_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// What has arrived of a stream. A new connection needs a new one.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    /// The last line ended with CR: an LF that follows belongs to it.
    after_cr: bool,
    past_first_line: bool,
    kind: String,
    data: Vec<u8>,
    id: Option<String>,
    retry_ms: Option<u64>,
}

impl Parser {
    /// Takes the next bytes, gives every event that ends in them to `tell`.
    pub fn push(&mut self, mut bytes: &[u8], mut tell: impl FnMut(Event)) -> Result<(), TooLong> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = bytes.iter().position(|&byte| byte == b'\n' || byte == b'\r');
            let piece = &bytes[..end.unwrap_or(bytes.len())];
            if self.line.len() + piece.len() > limits::TOP_EVENT_BYTES_MAX {
                return Err(TooLong);
            }
            self.line.extend_from_slice(piece);
            let Some(end) = end else { return Ok(()) };
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            let line = std::mem::take(&mut self.line);
            let told = self.line_ended(&line);
            self.line = line;
            self.line.clear();
            if let Some(event) = told? {
                tell(event);
            }
        }
        Ok(())
    }

    /// The last id that was given, for `Last-Event-ID`.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// How long the server wants a reader to wait before it comes back.
    pub fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }

    fn line_ended(&mut self, line: &[u8]) -> Result<Option<Event>, TooLong> {
        let line = match std::mem::replace(&mut self.past_first_line, true) {
            false => line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line),
            true => line,
        };
        if line.is_empty() {
            return Ok(self.event_ended());
        }
        let (field, value) = match line.iter().position(|&byte| byte == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                if self.data.len() + value.len() + 1 > limits::TOP_EVENT_BYTES_MAX + 1 {
                    return Err(TooLong);
                }
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            b"event" => self.kind = String::from_utf8_lossy(value).into_owned(),
            b"id" if !value.contains(&0) => self.id = Some(String::from_utf8_lossy(value).into_owned()),
            b"retry" if value.iter().all(u8::is_ascii_digit) => {
                self.retry_ms = str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
            }
            // Comments have an empty name; unknown fields are the future's.
            _ => {}
        }
        Ok(None)
    }

    fn event_ended(&mut self) -> Option<Event> {
        let kind = std::mem::take(&mut self.kind);
        if self.data.pop().is_none() {
            return None; // nothing to tell: the end of a comment, of an id alone
        }
        let data = String::from_utf8_lossy(&self.data).into_owned();
        self.data.clear();
        Some(Event { kind: if kind.is_empty() { "message".to_string() } else { kind }, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pieces: &[&[u8]]) -> (Vec<(String, String)>, Option<String>, Option<u64>) {
        let mut parser = Parser::default();
        let mut events = Vec::new();
        for piece in pieces {
            parser.push(piece, |event| events.push((event.kind, event.data))).unwrap();
        }
        (events, parser.id().map(str::to_string), parser.retry_ms())
    }

    fn told(kind: &str, data: &str) -> (String, String) {
        (kind.to_string(), data.to_string())
    }

    const STREAM: &[u8] =
        b"\xef\xbb\xbf: hello\nretry: 1000\nid: 7-1\nevent: hello\ndata: {\"a\":1,\ndata: \"b\":2}\n\n\
        :thump\n\r\nid:7-2\r\nevent:tick\r\ndata\r\ndata:  two\r\n\r\nid: 7-3\rdata:three\r\runknown: x\n\n\
        event: lost\n\nid: bad\0id\nretry: 5x\ndata: \xffv\xc3\xa4\n\ndata: without end";

    #[test]
    fn a_stream_is_read_as_the_standard_says() {
        let (events, id, retry) = all(&[STREAM]);
        let expected = [
            told("hello", "{\"a\":1,\n\"b\":2}"),
            told("tick", "\n two"),
            told("message", "three"),
            // The event named 'lost' had no data: it is none, and its name does not stick.
            told("message", "\u{fffd}vä"),
        ];
        assert_eq!(events, expected);
        assert_eq!((id.as_deref(), retry), (Some("7-3"), Some(1000)));
    }

    #[test]
    fn a_stream_split_anywhere_gives_the_same() {
        let whole = all(&[STREAM]);
        for split in 0..=STREAM.len() {
            assert_eq!(all(&[&STREAM[..split], &STREAM[split..]]), whole, "split at {split}");
        }
        let bytes: Vec<&[u8]> = STREAM.chunks(1).collect();
        assert_eq!(all(&bytes), whole);
    }

    #[test]
    fn a_line_without_end_is_refused_at_the_bound() {
        let mut parser = Parser::default();
        let piece = [b'x'; 4096];
        let mut taken = 0;
        while parser.push(&piece, |_| panic!("no event")).is_ok() {
            taken += piece.len();
            assert!(taken <= limits::TOP_EVENT_BYTES_MAX);
        }
        assert_eq!(taken, limits::TOP_EVENT_BYTES_MAX);
    }

    #[test]
    fn an_event_without_end_is_refused_at_the_bound() {
        let mut parser = Parser::default();
        let line = format!("data: {}\n", "x".repeat(1000));
        let lines = (0..).take_while(|_| parser.push(line.as_bytes(), |_| panic!("no event")).is_ok()).count();
        assert_eq!(lines, limits::TOP_EVENT_BYTES_MAX / 1001);
    }
}
