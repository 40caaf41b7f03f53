//! Whether nodes can be called by name on this machine.

use fastvpn_dbus::tree::Network;

use super::{Finding, Level};
use crate::commands::status::how_to_ask;

/// Judges who asks for names of nodes; nothing is said where there are none
pub(super) fn names(network: &Network) -> Option<Finding> {
    let known = &network.facts;
    let of = |level, message: String, remedy: String| {
        Some(Finding::new(level, "names", message, remedy))
    };
    let name = format!("NAME.{}", known.dns_suffix);
    match known.dns_state.as_str() {
        "announced" => Some(Finding::ok("names", format!("{name} works on this machine"))),
        "refused" => of(
            Level::Warning,
            format!("{name} does not work on this machine: {}", known.dns_detail),
            "let the user fastvpn do that: install org.fastvpn.rules in \
             /usr/share/polkit-1/rules.d"
                .to_owned(),
        ),
        "failed" => of(
            Level::Warning,
            format!("{name} does not work: {}", known.dns_detail),
            "see what else listens there: ss -lnp 'sport = :53'".to_owned(),
        ),
        "unannounced" => of(
            Level::Note,
            format!("{name} does not work by itself, as systemd-resolved does not run"),
            format!("run that, or ask as follows: {}", how_to_ask(network)),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples;

    #[test]
    fn names_that_nobody_asks_for_are_found_with_what_helps() {
        let with = |state: &str| {
            let mut network = samples::network();
            network.facts.dns_state = state.to_owned();
            network.facts.dns_detail = "because".to_owned();
            names(&network)
        };
        assert_eq!(with("announced").unwrap().level, Level::Ok);
        assert_eq!(with("off"), None);
        for (state, level, remedy) in [
            ("refused", Level::Warning, "org.fastvpn.rules"),
            ("failed", Level::Warning, "ss -lnp"),
            ("unannounced", Level::Note, "dig @172.16.97.101 -p 53 NAME.office.fastvpn"),
        ] {
            let finding = with(state).unwrap();
            assert_eq!(finding.level, level, "{state}");
            assert!(finding.remedy.unwrap().contains(remedy), "{state}");
            assert_eq!(finding.message.contains("because"), state != "unannounced", "{state}");
        }
    }
}
