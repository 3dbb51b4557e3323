//! The macro that turns the list of options into the builder and the validated configuration.

/// Defines [`ConfigBuilder`](super::ConfigBuilder), [`Config`](super::Config), and their methods.
///
/// An option is `name(argument of the setter): type in the builder => type in Config`, how its
/// getter reads it, its variable, what an error says is allowed, and how the value is found. What
/// comes later may use the values of the options before it.
macro_rules! options {
    ($(
        $(#[$doc:meta])*
        $name:ident($argument:ty): $given:ty => $value:ty,
        get $getter:ty: |$config:ident| $read:expr,
        $variable:literal: $allowed:expr,
        |$input:ident| $resolve:expr;
    )*) => {
        /// Collects options. What is not set comes from the environment, if asked to, and else from
        /// the defaults.
        ///
        /// Nothing is checked before [`build`](Self::build).
        #[derive(Debug, Clone)]
        pub struct ConfigBuilder {
            database: Option<String>,
            vars: Vars,
            $($name: Option<$given>,)*
        }

        /// A validated configuration. Made by [`Config::builder`]. Every option is described on its
        /// [`ConfigBuilder`] method.
        #[derive(Debug, Clone)]
        pub struct Config {
            url: DatabaseUrl,
            database_url: String,
            $($name: $value,)*
        }

        const VARIABLES: &[&str] = &[$($variable),*];

        impl ConfigBuilder {
            fn new(database: &Path) -> Self {
                Self {
                    database: database.to_str().map(str::to_owned),
                    vars: Vars::default(),
                    $($name: None,)*
                }
            }

            $(
                $(#[$doc])*
                #[doc = concat!(" Environment: `", $variable, "`.")]
                #[must_use]
                pub fn $name(mut self, $name: $argument) -> Self {
                    self.$name = Some($name.into());
                    self
                }
            )*

            /// Checks every option.
            ///
            /// # Errors
            ///
            /// [`ConfigError`] names the first option whose value cannot work, and the environment
            /// variable it came from.
            pub fn build(self) -> Result<Config, ConfigError> {
                let url = database_of(self.database)?;
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
                Ok(Config { database_url: url.clone().writable().to_string(), url, $($name,)* })
            }
        }

        impl Config {
            $(
                #[doc = concat!("See [`ConfigBuilder::", stringify!($name), "`].")]
                #[must_use]
                pub fn $name(&self) -> $getter {
                    let $config = self;
                    $read
                }
            )*
        }
    };
}

pub(super) use options;
