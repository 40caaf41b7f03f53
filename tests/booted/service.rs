//! The service as an administrator meets it: systemctl, the journal, polkit.

use std::time::Duration;

use fastvpn_tests::cases;
use fastvpn_tests::lab::booted::System;

use crate::support::{NETWORK, SOON, alone, hub_config, write_config};

cases![
    administrator_may_after_typing_the_password,
    journal_has_the_values_as_fields,
    members_are_for_administrators,
    polkit_decides_for_users_without_a_dialog,
    reload_fails_with_the_problems_and_changes_nothing,
    user_who_sits_at_the_machine_may_connect,
];

fn reload_fails_with_the_problems_and_changes_nothing() {
    let (_lab, system) = alone();
    write_config(&system, &hub_config(&[]).replace("subnet", "subnets"));

    let reload = system.answer("systemctl reload fastvpnd").unwrap();

    assert_ne!(reload.code, 0, "{reload}");
    let said = system.sh("journalctl --boot --unit fastvpnd --output cat").unwrap();
    assert!(said.contains("/etc/fastvpn/home.toml:2: subnets: is no key"), "{said}");
    assert_eq!(system.sh("systemctl is-active fastvpnd").unwrap(), "active\n");
    system.await_state(NETWORK, "up", Duration::ZERO).unwrap();

    write_config(&system, &hub_config(&[]));
    system.sh("systemctl reload fastvpnd").unwrap();
}

fn journal_has_the_values_as_fields() {
    let (_lab, system) = alone();

    let journal = system.journal("fastvpnd").unwrap();

    let of_network = journal.iter().find(|entry| entry["FASTVPN_NETWORK"] == NETWORK);
    let entry = of_network.unwrap_or_else(|| panic!("{journal:#?}"));
    assert_eq!(entry["SYSLOG_IDENTIFIER"], "fastvpnd");
    assert_eq!(entry["_SYSTEMD_UNIT"], "fastvpnd.service");
    assert_eq!(entry["_COMM"], "fastvpnd");
    assert_eq!(entry["PRIORITY"], "5", "what matters to an administrator is a notice: {entry:#}");
    assert!(entry["MESSAGE"].is_string() && entry["TARGET"].is_string(), "{entry:#}");
    // nothing that is worth waking up for
    let loud =
        |entry: &&serde_json::Value| entry["PRIORITY"].as_str().is_some_and(|level| level < "5");
    assert_eq!(journal.iter().find(loud), None);
}

fn polkit_decides_for_users_without_a_dialog() {
    let (_lab, system) = alone();
    system.sh("useradd --create-home carol && useradd --create-home dave").unwrap();
    let disconnect = |user: &str| system.answer_as(user, "fastvpnctl disconnect home").unwrap();
    let reload = |user: &str| system.answer_as(user, "fastvpnctl reload").unwrap();

    // looking is free; changing is not for those who sit nowhere
    assert_eq!(system.answer_as("carol", "fastvpnctl status home").unwrap().code, 0);
    for answer in [disconnect("carol"), reload("carol")] {
        assert_eq!(answer.code, 4, "{answer}");
    }
    system.await_state(NETWORK, "up", Duration::ZERO).unwrap();

    // an administrator may say otherwise
    system.write("/etc/polkit-1/rules.d/50-carol.rules", 0o644, RULE).unwrap();
    system.await_sh("runuser -u carol -- fastvpnctl disconnect home", SOON).unwrap();
    system.await_state(NETWORK, "down", SOON).unwrap();
    assert_eq!(reload("carol").code, 4);
    assert_eq!(disconnect("dave").code, 4);

    // root is asked nothing
    assert_eq!(system.ctl(&["connect", NETWORK]).unwrap().code, 0);
    assert_eq!(system.ctl(&["reload"]).unwrap().code, 0);
    assert_eq!(failed(&system), "");
}

fn user_who_sits_at_the_machine_may_connect() {
    let (_lab, system) = alone();
    system.sh("useradd --create-home carol").unwrap();
    // a seat without virtual terminals has room for a session of its own
    system
        .sh("mount --bind /run/systemd/inaccessible/dir /sys/devices/virtual/tty/tty0;
            systemctl restart systemd-logind")
        .unwrap();
    // as a display manager does
    let seat = ["--property=PAMName=login", "--uid=carol", "--setenv=XDG_SEAT=seat0"];
    let at_seat = |script: &str| system.unit(&seat, script).unwrap();
    let session = at_seat("loginctl show-session $XDG_SESSION_ID -p Seat -p Remote -p Active");
    assert_eq!(session.stdout, "Seat=seat0\nRemote=no\nActive=yes\n", "{session}");

    let disconnect = at_seat("fastvpnctl disconnect home");

    assert_eq!(disconnect.code, 0, "{disconnect}");
    system.await_state(NETWORK, "down", SOON).unwrap();
    assert_eq!(at_seat("fastvpnctl connect home").code, 0);
    // that is for administrators, also there
    assert_eq!(at_seat("fastvpnctl reload").code, 4);
}

fn members_are_for_administrators() {
    let (_lab, system) = alone();
    system.sh("useradd --create-home carol").unwrap();
    let changes = [
        "fastvpnctl invite laptop --network home --endpoint vpn.example.org:8796",
        "fastvpnctl member approve laptop --network home",
        "fastvpnctl member revoke laptop --network home",
        "fastvpnctl member rename laptop desk --network home",
    ];

    for change in changes {
        let answer = system.answer_as("carol", change).unwrap();
        assert_eq!(answer.code, 4, "{change}: {answer}");
        assert!(answer.stderr.contains("manage the members of a network"), "{change}: {answer}");
    }

    assert_eq!(system.answer(changes[0]).unwrap().code, 0);
    // an administrator may hand over this and nothing else
    let rule = RULE.replace("org.fastvpn.connect", "org.fastvpn.manage-members");
    system.write("/etc/polkit-1/rules.d/50-carol.rules", 0o644, &rule).unwrap();
    let invite = "runuser -u carol -- fastvpnctl invite phone --endpoint vpn.example.org:8796";
    system.await_sh(invite, SOON).unwrap();
    assert_eq!(system.answer_as("carol", "fastvpnctl disconnect home").unwrap().code, 4);
}

fn administrator_may_after_typing_the_password() {
    let (_lab, system) = alone();
    for (user, groups) in [("carol", "--groups sudo"), ("dave", "")] {
        system.sh(&format!("useradd --create-home {groups} {user}")).unwrap();
        system.sh(&format!("echo {user}:secret-{user} | chpasswd")).unwrap();
    }
    system.write("/srv/dialog.zsh", 0o644, DIALOG).unwrap();
    let reload = |user: &str, password: &str| {
        let dialog = format!("timeout 60 zsh -f /srv/dialog.zsh {password}");
        // polkit asks in sessions only, such as logging in makes
        let session = ["--property=PAMName=login".to_owned(), format!("--uid={user}")];
        system.unit(&session.each_ref().map(String::as_str), &dialog).unwrap()
    };

    let may = reload("carol", "secret-carol");
    assert!(may.stdout.contains("change the configuration of fastvpn networks"), "{may}");
    assert!(may.stdout.contains("status 0"), "{may}");
    assert!(!may.stdout.contains("secret"), "{may}");
    let mistyped = reload("carol", "secret-dave");
    assert!(mistyped.stdout.contains("status 4"), "{mistyped}");
    // it is an administrator's password that is asked for, whoever asks
    let other = reload("dave", "secret-dave");
    assert!(other.stdout.contains("status 4"), "{other}");
    assert!(reload("dave", "secret-carol").stdout.contains("status 0"));
}

fn failed(system: &System) -> String {
    system.sh("systemctl list-units --failed --no-legend --plain").unwrap()
}

const RULE: &str = "polkit.addRule(function(action, subject) {
    if (action.id == 'org.fastvpn.connect' && subject.user == 'carol') {
        return polkit.Result.YES;
    }
});
";

/// Reloads on a terminal of its own, and types a password when it is asked for one
const DIALOG: &str = r#"
zmodload zsh/zpty
zpty dialog 'fastvpnctl reload; print "status $?"'
zpty -r -m dialog asked '*assword: *'
# what was typed before the question is dropped
sleep 0.3
zpty -w dialog "$1"
zpty -r -m dialog ended '*status [0-9]*'
print -r -- "${asked//$'\r'/}${ended//$'\r'/}"
"#;
