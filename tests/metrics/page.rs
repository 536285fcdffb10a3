//! A page of metrics, read back: names, labels, values.

use std::collections::BTreeMap;

pub type Labels = BTreeMap<String, String>;

/// A sample.
#[derive(Clone, Debug)]
pub struct Sample {
    pub name: String,
    pub labels: Labels,
    pub value: f64,
}

/// Every sample of a page in Prometheus' text format.
pub fn samples(text: &str) -> Vec<Sample> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(sample).collect()
}

/// The sum of one name's samples that carry these labels.
pub fn sum(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> f64 {
    let carries = |sample: &&Sample| {
        sample.name == name
            && labels.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|it| it == value))
    };
    samples.iter().filter(carries).map(|sample| sample.value).sum()
}

fn sample(line: &str) -> Sample {
    let Some(end) = line.find(['{', ' ']) else { panic!("no sample: {line}") };
    let (name, mut rest) = line.split_at(end);
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        let (found, after) = read_labels(inner).unwrap_or_else(|| panic!("no sample: {line}"));
        (labels, rest) = (found, after);
    }
    let value = rest.split_whitespace().next().unwrap_or_default();
    let value = match value {
        "+Inf" => f64::INFINITY,
        other => other.parse().unwrap_or_else(|_| panic!("no sample: {line}")),
    };
    Sample { name: name.to_string(), labels, value }
}

/// Reads `a="b",c="d"}` with its escapes; answers what comes behind.
pub fn read_labels(mut rest: &str) -> Option<(Labels, &str)> {
    let mut labels = Labels::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, value) = rest.split_once("=\"")?;
        let mut text = String::new();
        let mut letters = value.char_indices();
        let end = loop {
            match letters.next()? {
                (at, '"') => break at + 1,
                (_, '\\') => text.push(match letters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => text.push(other),
            }
        };
        labels.insert(name.to_string(), text);
        rest = &value[end..];
    }
}
