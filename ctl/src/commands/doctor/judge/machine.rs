//! Whether the system has what the daemon needs.

use super::{Finding, Level};
use crate::commands::doctor::facts::{MachineFacts, Polkit, Tun};

/// Judges what does not belong to one network
pub(in crate::commands::doctor) fn machine(facts: &MachineFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(facts.tun.as_ref().map(tun));
    findings.extend(facts.polkit.as_ref().map(polkit));
    if facts.networkd_removes {
        findings.push(Finding::new(
            Level::Warning,
            "systemd-networkd",
            "systemd-networkd removes the routes of others when it starts, and so for a moment ours",
            "set ManageForeignRoutes=no and ManageForeignRoutingPolicyRules=no under [Network] in \
             /etc/systemd/networkd.conf.d/50-fastvpn.conf; the package brings that in /usr/lib",
        ));
    }
    findings.extend(clock(facts));
    findings
}

fn tun(tun: &Tun) -> Finding {
    let problem =
        |message: String, remedy: &str| Finding::new(Level::Problem, "tun", message, remedy);
    match tun {
        Tun::Closed(mode) => Finding::new(
            Level::Warning,
            "tun",
            format!("/dev/net/tun has mode {mode:04o}; the user fastvpn may not open it"),
            "run: chmod 666 /dev/net/tun (that is what udev makes of it; it gives nobody rights)",
        ),
        Tun::Fine => Finding::ok("tun", "/dev/net/tun is there"),
        Tun::Foreign => problem(
            "/dev/net/tun is not the device of tunnels".to_owned(),
            "remove it, and run: mkdir -p /dev/net && mknod -m 666 /dev/net/tun c 10 200",
        ),
        Tun::Missing => problem(
            "there is no /dev/net/tun, so no network can have an interface".to_owned(),
            "run: modprobe tun; a container must be given the device by its host",
        ),
    }
}

fn polkit(polkit: &Polkit) -> Finding {
    match polkit {
        Polkit::Fine => {
            Finding::ok("polkit", "polkit decides what users other than root may change")
        }
        Polkit::Missing => Finding::new(
            Level::Note,
            "polkit",
            "there is no polkit: nobody but root may change anything",
            "if others should, run: apt install polkitd",
        ),
        Polkit::NoActions(place) => Finding::new(
            Level::Warning,
            "polkit",
            "polkit does not know what may be done to fastvpn: nobody but root may change anything",
            format!("put org.fastvpn.policy into {}", place.display()),
        ),
    }
}

fn clock(facts: &MachineFacts) -> Option<Finding> {
    let days = facts.clock_behind / DAY;
    if days > 0 {
        return Some(Finding::new(
            Level::Problem,
            "clock",
            format!("the clock is at least {days} days behind: quotas and invitations go wrong"),
            "set it: timedatectl set-ntp true",
        ));
    }
    (facts.clock_kept == Some(false)).then(|| {
        Finding::new(
            Level::Note,
            "clock",
            "nobody keeps the clock right; quotas and invitations depend on it",
            "run: timedatectl set-ntp true",
        )
    })
}

/// Seconds of a day
const DAY: u64 = 24 * 60 * 60;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::judge::testing::{bad, said};

    #[test]
    fn what_could_not_be_found_out_is_not_spoken_of() {
        assert_eq!(machine(&MachineFacts::default()), []);
    }

    #[test]
    fn machine_without_tunnels_has_a_problem() {
        let of = |tun| machine(&MachineFacts { tun: Some(tun), ..Default::default() });

        assert_eq!(bad(&of(Tun::Fine)), []);
        assert_eq!(bad(&of(Tun::Missing)), [(Level::Problem, "tun")]);
        assert_eq!(bad(&of(Tun::Foreign)), [(Level::Problem, "tun")]);
        let closed = of(Tun::Closed(0o600));
        assert_eq!(bad(&closed), [(Level::Warning, "tun")]);
        assert!(said(&closed).contains("mode 0600"), "{closed:?}");
    }

    #[test]
    fn polkit_has_to_know_our_actions() {
        let of = |polkit| machine(&MachineFacts { polkit: Some(polkit), ..Default::default() });

        assert_eq!(bad(&of(Polkit::Fine)), []);
        assert_eq!(bad(&of(Polkit::Missing)), [(Level::Note, "polkit")]);
        let unknown = of(Polkit::NoActions("/usr/share/polkit-1/actions".into()));
        assert_eq!(bad(&unknown), [(Level::Warning, "polkit")]);
        assert!(said(&unknown).contains("into /usr/share/polkit-1/actions"));
    }

    #[test]
    fn clock_may_be_late_by_hours_but_not_by_days() {
        let of = |clock_behind, clock_kept| {
            machine(&MachineFacts { clock_behind, clock_kept, ..Default::default() })
        };

        assert_eq!(bad(&of(DAY - 1, Some(true))), []);
        assert_eq!(bad(&of(0, Some(false))), [(Level::Note, "clock")]);
        let late = of(3 * DAY, Some(false));
        assert_eq!(bad(&late), [(Level::Problem, "clock")]);
        assert!(said(&late).contains("3 days behind"));
    }

    #[test]
    fn networkd_that_removes_routes_is_told_of() {
        let facts = MachineFacts { networkd_removes: true, ..Default::default() };

        assert!(said(&machine(&facts)).contains("ManageForeignRoutes=no"));
    }
}
