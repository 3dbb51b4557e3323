//! The macro that turns the list of options into the builder and the validated set.

/// Defines [`LiteFsBuilder`](super::LiteFsBuilder), its setters, and [`Options`](super::Options).
///
/// An option of the environment is a line `name(argument of the setter): type in the builder =>
/// type in Options`, its variable, what an error says is allowed, and how the value is found. What
/// comes later may use the values of the options before it, and the tracker's configuration.
///
/// An option of the program has no variable: `name(argument => stored value): type = default`.
macro_rules! options {
    (
        tracker: $config:ident;
        environment { $(
            $(#[$doc:meta])*
            $name:ident($argument:ty): $given:ty => $value:ty,
            $variable:literal: $allowed:literal,
            |$input:ident| $resolve:expr;
        )* }
        program { $(
            $(#[$program_doc:meta])*
            $program_name:ident($program_argument:ident: $program_type:ty => $stored:expr):
            $program_value:ty = $default:expr;
        )* }
    ) => {
        /// Sets up a [`LiteFs`](crate::LiteFs) handle. Made by
        /// [`LiteFs::builder`](crate::LiteFs::builder).
        ///
        /// Every option has a default that suits production. [`from_env`](Self::from_env) reads the
        /// options that have an environment variable. A value that is set on the builder wins,
        /// whichever is called first. Nothing is checked before [`start`](Self::start).
        #[must_use]
        pub struct LiteFsBuilder {
            tracker: ConfigBuilder,
            vars: Vars,
            $($name: Option<$given>,)*
            $($program_name: $program_value,)*
        }

        /// A validated set of options. Each is described on its setter.
        pub(crate) struct Options {
            pub(crate) config: Config,
            $(pub(crate) $name: $value,)*
            $(pub(crate) $program_name: $program_value,)*
        }

        impl LiteFsBuilder {
            pub(crate) fn new(database: &str) -> Self {
                Self {
                    tracker: Config::builder(database),
                    vars: Vars::default(),
                    $($name: None,)*
                    $($program_name: $default,)*
                }
            }

            $(
                $(#[$doc])*
                #[doc = ""]
                #[doc = concat!("Environment: `", $variable, "`, ", $allowed, ".")]
                pub fn $name(mut self, $name: $argument) -> Self {
                    self.$name = Some($name.into());
                    self
                }
            )*

            $(
                $(#[$program_doc])*
                pub fn $program_name(mut self, $program_argument: $program_type) -> Self {
                    self.$program_name = $stored;
                    self
                }
            )*

            /// Checks the options.
            pub(crate) fn build(self) -> Result<Options, StartError> {
                let $config = self.tracker.from_vars(self.vars.clone()).build()?;
                $(
                    let $name: $value = {
                        let $input = Given {
                            option: stringify!($name),
                            variable: $variable,
                            allowed: $allowed,
                            set: self.$name,
                            vars: &self.vars,
                        };
                        $resolve?
                    };
                )*
                Ok(Options {
                    config: $config,
                    $($name,)*
                    $($program_name: self.$program_name,)*
                })
            }
        }

        #[cfg(test)]
        impl Options {
            /// The names of the options and of their variables.
            pub(super) const VARIABLES: &[(&str, &str)] =
                &[$((stringify!($name), $variable)),*];

            /// The values of the options that have a variable, as text.
            pub(super) fn describe(&self) -> Vec<String> {
                vec![format!("{:?}", self.config), $(format!("{:?}", self.$name)),*]
            }
        }
    };
}

pub(super) use options;
