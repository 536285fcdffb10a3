//! The result for a terminal.
use crate::host::calibration::Calibration;
/// Draft.
pub fn render(c: &Calibration) -> String {
    let mut t = String::new();
    for (n, m) in c.measured() {
        t += &format!("{n:<34} {:>10.3} {:>10.3} {:>10.3} {}\n", m.median, m.low, m.high, m.rounds);
    }
    for n in &c.notes {
        t += &format!("note: {n}\n");
    }
    t + &format!("{:?}\n{}\ntook {}\n", c.jitter.pooled, c.figures().line(), c.took_s)
}
