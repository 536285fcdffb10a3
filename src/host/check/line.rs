//! One line of the check.

use serde::Serialize;

use crate::host::calibration::Figures;

/// How a line came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As wanted.
    Ok,
    /// Works, at a price.
    Costs,
    /// Does not work: the appliance would not start, or not as the profile demands.
    Refused,
}

impl Verdict {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Costs => "costs",
            Verdict::Refused => "refused",
        }
    }
}

/// How a cost is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", content = "of", rename_all = "kebab-case")]
pub enum Source {
    /// There is no cost.
    None,
    /// It follows from what the line itself says.
    Follows,
    /// `host calibrate` measured it on this machine, then.
    Calibrated(String),
    /// Somebody's table or publication says so.
    Cited(String),
    /// This project measured it elsewhere: where, and the command.
    Measured(String),
    /// Nobody has.
    NotMeasured,
}

impl Source {
    /// In reports, behind the cost.
    pub fn text(&self) -> String {
        match self {
            Source::None | Source::Follows => String::new(),
            Source::Calibrated(taken) => format!("measured here, {taken}"),
            Source::Cited(by) => format!("says {by}"),
            Source::Measured(how) => format!("measured elsewhere: {how}"),
            Source::NotMeasured => "not measured here".to_owned(),
        }
    }
}

/// One line of the check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What was looked at.
    pub item: String,
    /// What this machine has.
    pub have: String,
    /// What the profile wants.
    pub want: String,
    /// How it came out.
    pub verdict: Verdict,
    /// What the difference costs; empty when there is none.
    pub cost: String,
    /// How that is known.
    pub source: Source,
    /// What to do about it; empty when there is nothing to do.
    pub remedy: String,
}

impl Line {
    pub(super) fn ok(item: impl Into<String>, have: impl Into<String>, want: impl Into<String>) -> Line {
        Line {
            item: item.into(),
            have: have.into(),
            want: want.into(),
            verdict: Verdict::Ok,
            cost: String::new(),
            source: Source::None,
            remedy: String::new(),
        }
    }

    pub(super) fn costs(self, cost: impl Into<String>, source: Source, remedy: impl Into<String>) -> Line {
        Line { verdict: Verdict::Costs, cost: cost.into(), source, remedy: remedy.into(), ..self }
    }

    pub(super) fn refused(self, cost: impl Into<String>, remedy: impl Into<String>) -> Line {
        Line { verdict: Verdict::Refused, ..self.costs(cost, Source::Follows, remedy) }
    }

    /// The cost and how it is known, in one text.
    pub fn cost_text(&self) -> String {
        match self.source.text() {
            source if source.is_empty() => self.cost.clone(),
            source => format!("{} ({source})", self.cost),
        }
    }
}

/// A cost that `host calibrate` has measured here, or else the words without a number.
pub(super) fn calibrated(
    figures: Option<&Figures>,
    pick: impl Fn(&Figures) -> Option<f64>,
    with: impl Fn(f64) -> String,
    without: &str,
) -> (String, Source) {
    match figures.and_then(|figures| Some((pick(figures)?, figures))) {
        Some((figure, figures)) => (with(figure), Source::Calibrated(figures.taken.clone())),
        None => (without.to_owned(), Source::NotMeasured),
    }
}

/// Lines that are as wanted, and all of them.
pub fn score(lines: &[Line]) -> (usize, usize) {
    (lines.iter().filter(|line| line.verdict == Verdict::Ok).count(), lines.len())
}
