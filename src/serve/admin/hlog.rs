//! Every histogram since the start, as the log that HdrHistogram's own tools read: a line a tag, V2 encoding, deflated.

use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::observe::Buckets;
use crate::observe::service::{OPERATIONS, STAGES};
use crate::serve::admin::sample::Sample;

/// Writes it. An operation that has not occurred has no line.
pub fn log(sample: &Sample, started_unix_ms: u64) -> Result<Vec<u8>, String> {
    let started = UNIX_EPOCH + Duration::from_millis(started_unix_ms);
    let (mut out, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
    let mut writer = IntervalLogWriterBuilder::new()
        .add_comment("Spinetail, time of requests inside the appliance since its start, in nanoseconds")
        .add_comment("tags: operation.stage of requests served by the shard they came to; operation.forwarded")
        .with_start_time(started)
        .with_base_time(started)
        .with_max_value_divisor(1.0)
        .begin_log_with(&mut out, &mut serializer)
        .map_err(|error| error.to_string())?;
    let mut line = |name: String, times: &Buckets| -> Result<(), String> {
        if times.is_empty() {
            return Ok(());
        }
        let tag = Tag::new(&name).ok_or_else(|| format!("'{name}' is no tag"))?;
        writer
            .write_histogram(&times.to_histogram(), Duration::ZERO, sample.at, Some(tag))
            .map_err(|error| format!("{error:?}"))
    };
    for operation in OPERATIONS {
        for stage in STAGES {
            let times = &sample.times[operation as usize][stage as usize];
            line(format!("{}.{}", operation.name(), stage.name()), times)?;
        }
        line(format!("{}.forwarded", operation.name()), &sample.forwarded[operation as usize])?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn the_log_reads_back() {
        let mut sample = Sample { at: Duration::from_secs(9), ..Sample::default() };
        for ns in [700, 900, 12_000_000] {
            sample.times[0][2].add(ns, 10);
        }
        sample.forwarded[1].add(40_000, 1);
        let bytes = log(&sample, 1_764_140_000_000).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let mut found = Vec::new();
        for entry in IntervalLogIterator::new(text.as_bytes()) {
            if let LogEntry::Interval(interval) = entry.unwrap() {
                let encoded = interval.encoded_histogram();
                let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, encoded).unwrap();
                let histogram: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
                let tag = interval.tag().map(|tag| tag.as_str().to_string()).unwrap_or_default();
                found.push((tag, histogram.len(), histogram.value_at_percentile(50.0)));
            }
        }
        assert_eq!(found, [("get.total".to_string(), 30, 903), ("set.forwarded".to_string(), 1, 40_191)]);
    }
}
