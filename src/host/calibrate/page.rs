//! Draft.
use crate::host::calibration::Calibration;
/// Draft.
pub fn render(_: &Calibration) -> String {
    String::new()
}
