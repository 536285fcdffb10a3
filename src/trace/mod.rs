//! Request traces: `time,key,size` rows in zstd-compressed CSV, the form that published traces are
//! exchanged in. Read by `load --trace` and `replay`, so that both see the same requests.
//!
//! Not for: deciding what a request means. A row is a read of `key`, whose object has `size` bytes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use crate::base::hash::BuildMix;

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceRequest {
    /// Seconds since the trace's start (fractions are dropped).
    pub second: u32,
    /// The object's identity.
    pub key: u64,
    /// The object's size in bytes, key included; 1 throughout in traces without sizes.
    pub size: u32,
}

/// A trace in memory, objects numbered in order of appearance.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// The rows in order, each an index into `objects` beside its second.
    pub requests: Vec<TraceRequest>,
    /// Distinct keys.
    pub unique: u64,
    /// Bytes of all distinct objects, each at the size of its first appearance.
    pub footprint_bytes: u64,
    /// Whether every size is 1: such a trace counts objects, not bytes.
    pub is_unsized: bool,
}

impl Trace {
    /// Reads a whole trace. An object keeps the size of its first appearance.
    pub fn read(path: &Path) -> Result<Trace, String> {
        let complaint = |error: io::Error| format!("{}: {error}", path.display());
        let file = File::open(path).map_err(complaint)?;
        let compressed = path.extension().is_some_and(|extension| extension == "zst");
        let mut trace = Trace { is_unsized: true, ..Trace::default() };
        let mut sizes: HashMap<u64, u32, BuildMix> = HashMap::default();
        let on_row = |row: TraceRequest| {
            let size = *sizes.entry(row.key).or_insert_with(|| {
                trace.unique += 1;
                trace.footprint_bytes += u64::from(row.size);
                row.size
            });
            trace.is_unsized &= size == 1;
            trace.requests.push(TraceRequest { size, ..row });
        };
        let result = if compressed {
            let decoder = ruzstd::decoding::StreamingDecoder::new(BufReader::with_capacity(1 << 20, file))
                .map_err(|error| format!("{}: {error}", path.display()))?;
            for_each_row(decoder, on_row)
        } else {
            for_each_row(file, on_row)
        };
        result.map_err(complaint)?;
        if trace.requests.is_empty() {
            return Err(format!("{}: holds no request", path.display()));
        }
        Ok(trace)
    }

    /// All distinct objects together: their number, or their bytes where the trace has sizes.
    pub fn footprint(&self) -> u64 {
        if self.is_unsized { self.unique } else { self.footprint_bytes }
    }

    /// The file's name without its endings.
    pub fn name_of(path: &Path) -> String {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.strip_suffix(".csv.zst").or_else(|| name.strip_suffix(".csv")).unwrap_or(&name).to_string()
    }
}

/// Parses rows as they come, in blocks: five million of them are read within a second or two.
fn for_each_row(mut source: impl Read, mut on_row: impl FnMut(TraceRequest)) -> io::Result<()> {
    let mut block = vec![0u8; BLOCK_BYTES];
    let (mut filled, mut line_number) = (0, 0u64);
    loop {
        let read = source.read(&mut block[filled..])?;
        let end = filled + read;
        let mut start = 0;
        while let Some(length) = block[start..end].iter().position(|&byte| byte == b'\n') {
            line_number += 1;
            parse_row(&block[start..start + length], line_number, &mut on_row)?;
            start += length + 1;
        }
        if read == 0 {
            if start < end {
                parse_row(&block[start..end], line_number + 1, &mut on_row)?;
            }
            return Ok(());
        }
        block.copy_within(start..end, 0);
        filled = end - start;
        if filled == block.len() {
            return Err(io::Error::other(format!("line {}: longer than any row", line_number + 1)));
        }
    }
}

fn parse_row(line: &[u8], line_number: u64, on_row: &mut impl FnMut(TraceRequest)) -> io::Result<()> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() || (line_number == 1 && line == b"time,key,size") {
        return Ok(());
    }
    let mut fields = line.split(|&byte| byte == b',');
    let mut number = |name: &str| {
        fields
            .next()
            .map(|field| field.split(|&byte| byte == b'.').next().unwrap_or(field))
            .and_then(|field| std::str::from_utf8(field).ok()?.parse::<u64>().ok())
            .ok_or_else(|| {
                io::Error::other(format!("line {line_number}: '{name}' is no whole number; rows are time,key,size"))
            })
    };
    let (second, key, size) = (number("time")?, number("key")?, number("size")?);
    on_row(TraceRequest {
        second: second.min(u64::from(u32::MAX)) as u32,
        key,
        size: size.clamp(1, u64::from(u32::MAX)) as u32,
    });
    Ok(())
}

const BLOCK_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Result<Vec<TraceRequest>, String> {
        let mut rows = Vec::new();
        for_each_row(text.as_bytes(), |row| rows.push(row)).map_err(|error| error.to_string())?;
        Ok(rows)
    }

    #[test]
    fn rows_are_read_with_and_without_header_and_last_newline() {
        let expected =
            vec![TraceRequest { second: 0, key: 7, size: 100 }, TraceRequest { second: 3, key: u64::MAX, size: 1 }];
        assert_eq!(rows("time,key,size\n0,7,100\n3.5,18446744073709551615,0\n").unwrap(), expected);
        assert_eq!(rows("0,7,100\r\n3,18446744073709551615,1").unwrap(), expected);
    }

    #[test]
    fn a_bad_row_is_named() {
        let error = rows("time,key,size\n0,7,100\n0,x,100\n").unwrap_err();
        assert!(error.contains("line 3") && error.contains("key"), "{error}");
        assert!(rows("1,2\n").unwrap_err().contains("size"));
    }
}
