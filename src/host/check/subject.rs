//! All that is looked at, and the order in which it is.

use crate::host::calibration::Figures;
use crate::host::check::line::{Line, Source, Verdict};
use crate::host::check::{cores, kernel, memory, network};
use crate::host::files::Files;
use crate::host::placement::{Placement, place};
use crate::host::process::Limits;
use crate::host::profile::{Profile, ProfileError};
use crate::host::topology::Topology;

/// What is held against one another.
#[derive(Clone, Copy)]
pub struct Subject<'s> {
    /// The machine.
    pub machine: &'s Topology,
    /// Its files, for kernel parameters.
    pub files: &'s Files,
    /// What the process may do.
    pub limits: &'s Limits,
    /// What is wanted.
    pub profile: &'s Profile,
    /// What was measured of this machine, if it was.
    pub figures: Option<&'s Figures>,
}

/// Holds a machine against a profile: the same lines in the same order every time. The error is the profile's: what
/// it wishes cannot be placed on this machine at all.
pub fn check(subject: &Subject<'_>) -> Result<Vec<Line>, ProfileError> {
    let placed = place(subject.machine, &subject.limits.allowed_cores, subject.profile)?;
    let mut lines = vec![kind_of_machine(subject), kernel::io_uring(subject)];
    lines.extend(cores::lines(subject, &placed));
    lines.extend(kernel::lines(subject, &placed));
    lines.extend(memory::lines(subject, &placed));
    lines.extend(network::lines(subject, &placed));
    lines.extend(kernel::parameters(subject));
    lines.extend(kernel::command_line(subject, &placed));
    Ok(lines)
}

/// Of these lines, those that the environment of a process decides (a container, a unit, a shell) and that are not as
/// wanted: what `serve` says when it starts. io_uring is not among them: what comes in its place is for who settles that.
pub fn denied(subject: &Subject<'_>) -> Vec<Line> {
    let Ok(placed) = place(subject.machine, &subject.limits.allowed_cores, subject.profile) else { return Vec::new() };
    let mut lines = vec![cores::core_quota(subject.machine, &placed)];
    lines.extend(memory::denied(subject, &placed));
    lines.retain(|line| line.verdict != Verdict::Ok);
    lines
}

fn kind_of_machine(subject: &Subject<'_>) -> Line {
    let differences = subject.profile.matches.differences(subject.machine);
    let have = subject.machine.cpu_model.clone().unwrap_or_else(|| subject.machine.architecture.clone());
    let line = Line::ok("kind of machine", have, format!("as '{}' describes", subject.profile.machine.name));
    if differences.is_empty() {
        return line;
    }
    line.costs(
        differences.join("; "),
        Source::Follows,
        "take the profile of this kind of machine ('spinetail host detect' names it), or change [match]",
    )
}

impl Placement {
    pub(super) fn data_list(&self) -> String {
        crate::host::topology::format_cpu_list(&self.data_cores())
    }
}
