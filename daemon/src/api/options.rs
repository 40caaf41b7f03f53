//! The options of a call: each taken by name, and none left over.

use std::collections::HashMap;

use fastvpn_dbus::Error;
use zbus::OwnedVariant;

/// What a caller gave beside the arguments
#[derive(Debug)]
pub(super) struct Options(HashMap<String, OwnedVariant>);

impl Options {
    /// Begins to read
    pub(super) fn new(given: HashMap<String, OwnedVariant>) -> Self {
        Self(given)
    }

    /// Takes an option, if it was given
    ///
    /// # Errors
    /// If it is of another type.
    pub(super) fn take<T: TryFrom<OwnedVariant>>(
        &mut self,
        name: &str,
    ) -> Result<Option<T>, Error> {
        let wrong = |_| Error::InvalidArgument(format!("option {name:?} is of the wrong type"));
        self.0.remove(name).map(T::try_from).transpose().map_err(wrong)
    }

    /// Ends the reading
    ///
    /// # Errors
    /// If there is an option that nobody took, so that no client believes that it was obeyed.
    pub(super) fn end(self) -> Result<(), Error> {
        match self.0.keys().min() {
            None => Ok(()),
            Some(name) => Err(Error::InvalidArgument(format!("unknown option {name:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use zbus::Variant;

    use super::*;

    #[test]
    fn options_are_taken_by_name_and_type_and_the_rest_is_refused() {
        let given = [
            ("subnet", Variant::from(vec!["10.0.0.0/24"])),
            ("autoconnect", Variant::from(true)),
            ("colour", Variant::from(7_u32)),
        ];
        let owned = |value| OwnedVariant::try_from(value).unwrap();
        let given = given.map(|(name, value)| (name.to_owned(), owned(value)));
        let mut options = Options::new(given.into_iter().collect());

        assert_eq!(options.take("subnet"), Ok(Some(vec!["10.0.0.0/24".to_owned()])));
        assert_eq!(options.take::<String>("endpoint"), Ok(None));
        assert!(options.take::<String>("autoconnect").is_err());
        let error = options.end().unwrap_err();
        assert_eq!(error.to_string(), "unknown option \"colour\"");
    }
}
