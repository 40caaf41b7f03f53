//! Command line of the daemon.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Parser;
use thiserror::Error;

use crate::logging;

/// Exit status after all went well
pub const EXIT_DONE: u8 = 0;
/// Exit status after a failure
pub const EXIT_FAILED: u8 = 1;
/// Exit status for a command line that makes no sense
pub const EXIT_USAGE: u8 = 2;

/// What the command line and the environment say
#[derive(Clone, Debug, Parser)]
#[command(name = "fastvpnd", version, about, max_term_width = 100, after_help = AFTER_HELP)]
pub struct Args {
    /// Directory of the administrator's configuration, one NAME.toml for each network
    #[arg(long, value_name = "DIR", default_value = "/etc/fastvpn")]
    pub config_dir: PathBuf,
    /// Directory of what the daemon itself keeps [default: $STATE_DIRECTORY or /var/lib/fastvpn]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Message bus to serve: system, session, none, or an ADDRESS such as unix:path=/run/my-bus
    #[arg(long, value_name = "BUS", default_value_t = Bus::System)]
    pub bus: Bus,
    /// Check the configuration, say what is wrong with it, and exit
    #[arg(long)]
    pub check: bool,
    /// Log level: error, warn, info, debug, trace, or MODULE=LEVEL,… [default: $FASTVPN_LOG or info]
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    log: Option<String>,
}

/// Which message bus to serve
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Bus {
    /// The one at this address
    Address(String),
    /// None: the daemon is controlled by signals only
    None,
    /// The session's
    Session,
    /// The system's
    System,
}

/// Why a text names no bus
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("write system, session, none, or an address such as unix:path=/run/my-bus")]
pub struct BusError;

impl Args {
    /// Reads the command line; ends the program on `--help`, `--version` and mistakes
    pub fn read() -> Self {
        Self::parse()
    }

    /// Returns the directory of what the daemon itself keeps
    pub fn state_dir(&self) -> PathBuf {
        self.state_dir_from(std::env::var_os("STATE_DIRECTORY"))
    }

    /// Returns the log level
    pub fn log_level(&self) -> String {
        self.log_level_from(std::env::var("FASTVPN_LOG").ok())
    }

    /// systemd lists several directories with colons between; ours has one
    fn state_dir_from(&self, variable: Option<OsString>) -> PathBuf {
        let variable = || {
            let first = variable.as_ref()?.to_str()?.split(':').next()?;
            (!first.is_empty()).then(|| PathBuf::from(first))
        };
        self.state_dir
            .clone()
            .or_else(variable)
            .unwrap_or_else(|| PathBuf::from("/var/lib/fastvpn"))
    }

    fn log_level_from(&self, variable: Option<String>) -> String {
        self.log
            .clone()
            .or(variable.filter(|level| !level.is_empty()))
            .unwrap_or_else(|| "info".to_owned())
    }
}

impl FromStr for Bus {
    type Err = BusError;

    fn from_str(text: &str) -> Result<Self, BusError> {
        match text {
            "none" => Ok(Self::None),
            "session" => Ok(Self::Session),
            "system" => Ok(Self::System),
            _ => match text.split_once(':') {
                Some((transport, _)) if !transport.is_empty() => Ok(Self::Address(text.to_owned())),
                _ => Err(BusError),
            },
        }
    }
}

impl fmt::Display for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address(address) => address,
            Self::None => "none",
            Self::Session => "session",
            Self::System => "system",
        })
    }
}

fn level(text: &str) -> Result<String, String> {
    logging::check_level(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

const AFTER_HELP: &str = "\
Exit status: 0 done, 1 failed or problems in the configuration, 2 wrong usage.
See fastvpnd(8), fastvpn.toml(5) and fastvpnctl(1).";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn nothing_said_is_the_system() {
        let args = read(&[]).unwrap();

        assert_eq!(args.config_dir, PathBuf::from("/etc/fastvpn"));
        assert_eq!(args.state_dir_from(None), PathBuf::from("/var/lib/fastvpn"));
        assert_eq!(args.bus, Bus::System);
        assert_eq!(args.log_level_from(None), "info");
        assert!(!args.check);
    }

    #[test]
    fn command_line_goes_before_environment() {
        let args = read(&["--state-dir", "/s", "--log", "debug"]).unwrap();
        assert_eq!(args.state_dir_from(Some("/env".into())), PathBuf::from("/s"));
        assert_eq!(args.log_level_from(Some("warn".to_owned())), "debug");

        let args = read(&[]).unwrap();
        assert_eq!(args.state_dir_from(Some("/env:/more".into())), PathBuf::from("/env"));
        assert_eq!(args.state_dir_from(Some("".into())), PathBuf::from("/var/lib/fastvpn"));
        assert_eq!(args.log_level_from(Some("warn".to_owned())), "warn");
    }

    #[test]
    fn buses_are_named_or_addressed() {
        for (text, want) in [
            ("system", Bus::System),
            ("session", Bus::Session),
            ("none", Bus::None),
            ("unix:path=/x", Bus::Address("unix:path=/x".to_owned())),
        ] {
            assert_eq!(read(&["--bus", text]).unwrap().bus, want);
            assert_eq!(want.to_string(), text);
        }
    }

    #[test]
    fn mistakes_are_usage_errors() {
        for args in [
            &["--bus", "/run/bus"][..],
            &["--bus", ":x"],
            &["--log", "loud"],
            &["--nonsense"],
            &["extra"],
        ] {
            assert_eq!(read(args).unwrap_err().exit_code(), i32::from(EXIT_USAGE), "{args:?}");
        }
        assert_eq!(read(&["--version"]).unwrap_err().exit_code(), i32::from(EXIT_DONE));
    }

    fn read(args: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from(["fastvpnd"].iter().chain(args))
    }
}
