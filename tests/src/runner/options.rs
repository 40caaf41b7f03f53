//! The command line of a test program.

/// What to run, and how
#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    /// Parts of the names to run; none: all
    pub(super) filters: Vec<String>,
    /// Parts of the names not to run
    pub(super) skips: Vec<String>,
    /// Whether filters are whole names
    pub(super) exact: bool,
    /// Whether to list the names only
    pub(super) list: bool,
    /// Whether output is shown as it comes
    pub(super) show_output: bool,
    /// How many cases run at a time
    pub(super) jobs: usize,
    /// The one case that this process runs for another one
    pub(super) one: Option<String>,
}

impl Options {
    /// Reads the arguments
    ///
    /// # Errors
    /// A sentence on the argument that is wrong.
    pub(super) fn read(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { jobs: 2, ..Self::default() };
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} wants a value"));
            match argument.as_str() {
                "--exact" => options.exact = true,
                "--list" => options.list = true,
                "--nocapture" | "--no-capture" => options.show_output = true,
                "--one" => options.one = Some(value()?),
                "--skip" => options.skips.push(value()?),
                "--test-threads" | "--jobs" => {
                    options.jobs = value()?.parse().map_err(|_| "not a number".to_owned())?;
                }
                "--quiet" | "-q" | "--color=always" | "--color=never" => {}
                _ if argument.starts_with('-') => return Err(format!("unknown option {argument}")),
                _ => options.filters.push(argument),
            }
        }
        options.jobs = options.jobs.max(1);
        Ok(options)
    }

    /// Tells whether a case is to run
    pub(super) fn wants(&self, name: &str) -> bool {
        let matches = |part: &String| if self.exact { name == part } else { name.contains(part) };
        let wanted = self.filters.is_empty() || self.filters.iter().any(matches);
        wanted && !self.skips.iter().any(|part| name.contains(part))
    }
}
