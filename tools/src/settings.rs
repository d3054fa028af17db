//! What a broker is started with: flags, then environment, then the configuration file, then defaults; the first that says
//! something counts.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use clap::parser::ValueSource;
use serde::Deserialize;

use crate::cli::{ADDRESS_DEFAULT, StartArgs};
use crate::failure::Failure;
use crate::units::ByteSize;

/// Where data goes when nothing says otherwise.
pub(crate) const DATA_DIR_DEFAULT: &str = "./highwater-data";

/// What a broker logs when nothing says otherwise.
pub(crate) const LOG_LEVEL_DEFAULT: &str = "warn";

/// Who said a setting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// A flag.
    Flag,
    /// An environment variable.
    Environment,
    /// The configuration file.
    File,
    /// Nobody.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::File => "file",
            Self::Default => "default",
        })
    }
}

/// A value and who said it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Setting<T> {
    /// The value.
    pub value: T,
    /// Who said it.
    pub source: Source,
}

/// The settings in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Settings {
    /// Directory for the broker's data.
    pub data_dir: Setting<PathBuf>,
    /// Addresses to listen on.
    pub listen: Setting<Vec<SocketAddr>>,
    /// Address that clients are told.
    pub advertise: Setting<Option<String>>,
    /// Cores to use.
    pub cores: Setting<u16>,
    /// Memory for requests and cache.
    pub memory: Setting<ByteSize>,
    /// What to log.
    pub log_level: Setting<String>,
    /// Listen beyond this machine without encryption.
    pub insecure: Setting<bool>,
}

/// The configuration file. A name that is not here is a mistake worth an error.
#[derive(Deserialize, Default, Debug)]
#[serde(deny_unknown_fields)]
struct File {
    data_dir: Option<PathBuf>,
    listen: Option<OneOrMany>,
    advertise: Option<String>,
    cores: Option<u16>,
    memory: Option<Size>,
    log_level: Option<String>,
    insecure: Option<bool>,
}

#[derive(Deserialize, Debug)]
#[serde(untagged, expecting = "an address such as \"127.0.0.1:9191\" or a list of them")]
enum OneOrMany {
    One(SocketAddr),
    Many(Vec<SocketAddr>),
}

#[derive(Deserialize, Debug)]
#[serde(untagged, expecting = "a size such as \"2GiB\" or a number of bytes")]
enum Size {
    Bytes(u64),
    Text(String),
}

impl Size {
    fn bytes(self) -> Result<ByteSize, String> {
        match self {
            Self::Bytes(n) => Ok(ByteSize(n)),
            Self::Text(text) => text.parse(),
        }
    }
}

/// What the machine offers: what defaults follow from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Machine {
    /// Cores the process may use.
    pub cores: u16,
    /// Bytes of memory.
    pub memory: ByteSize,
}

impl Machine {
    /// This machine.
    pub(crate) fn here() -> Self {
        let cores =
            std::thread::available_parallelism().map_or(1, |n| u16::try_from(n.get()).unwrap_or(u16::MAX));
        let info = rustix::system::sysinfo();
        let memory = ByteSize(info.totalram.saturating_mul(u64::from(info.mem_unit)));
        Self { cores, memory }
    }
}

impl Settings {
    /// Merges what the command line, environment and file say. `matches` are those of the `start` command.
    pub(crate) fn resolve(
        args: &StartArgs,
        log_level: Option<&String>,
        matches: &ArgMatches,
        machine: Machine,
    ) -> Result<Self, Failure> {
        let file = args.config.as_deref().map_or_else(|| Ok(File::default()), File::read)?;
        let merge = Merge { matches };
        let memory_in_file = file.memory.map(Size::bytes).transpose().map_err(|e| {
            let path = args.config.as_deref().unwrap_or(Path::new(""));
            Failure::configuration(format_args!("{}: memory: {e}", path.display()))
        })?;
        let listen_in_file = file.listen.map(|listen| match listen {
            OneOrMany::One(address) => vec![address],
            OneOrMany::Many(addresses) => addresses,
        });
        let settings = Self {
            data_dir: merge
                .pick("data_dir", args.data_dir.clone(), file.data_dir, || DATA_DIR_DEFAULT.into()),
            listen: merge.pick("listen", args.listen.clone(), listen_in_file, || {
                vec![ADDRESS_DEFAULT.parse().expect("the default address is an address")]
            }),
            advertise: merge.pick(
                "advertise",
                args.advertise.clone().map(Some),
                file.advertise.map(Some),
                || None,
            ),
            cores: merge.pick("cores", args.cores, file.cores, || machine.cores),
            memory: merge.pick("memory", args.memory, memory_in_file, || ByteSize(machine.memory.0 / 4)),
            log_level: merge
                .pick("log_level", log_level.cloned(), file.log_level, || LOG_LEVEL_DEFAULT.into()),
            insecure: merge.pick("insecure", args.insecure, file.insecure, || false),
        };
        settings.check(machine)?;
        Ok(settings)
    }

    fn check(&self, machine: Machine) -> Result<(), Failure> {
        if self.cores.value == 0 || self.cores.value > machine.cores {
            return Err(Failure::configuration(format_args!(
                "cores = {} cannot be: this process may use {}; give a number from 1 to {0}",
                self.cores.value, machine.cores
            )));
        }
        if self.listen.value.is_empty() {
            return Err(Failure::configuration(format_args!(
                "listen names no address; give one such as {ADDRESS_DEFAULT}"
            )));
        }
        let outside = self.listen.value.iter().find(|address| !address.ip().is_loopback());
        if let Some(address) = outside
            && !self.insecure.value
        {
            return Err(Failure::configuration(format_args!(
                "{address} can be reached from other machines, and nothing is encrypted or authenticated; \
                 listen on 127.0.0.1, or give --insecure if the network is trusted"
            )));
        }
        Ok(())
    }

    /// The settings as a configuration file, with who said each.
    pub(crate) fn to_toml(&self) -> String {
        let text = |s: &str| toml::Value::String(s.to_owned()).to_string();
        let list = self.listen.value.iter().map(|a| text(&a.to_string())).collect::<Vec<_>>().join(", ");
        let advertise = match &self.advertise.value {
            Some(address) => format!("advertise = {}  # {}\n", text(address), self.advertise.source),
            None => "# advertise is not set: clients are told the first address listened on\n".to_owned(),
        };
        format!(
            "data_dir = {}  # {}\nlisten = [{list}]  # {}\n{advertise}cores = {}  # {}\nmemory = {}  # {}\n\
             log_level = {}  # {}\ninsecure = {}  # {}\n",
            text(&self.data_dir.value.to_string_lossy()),
            self.data_dir.source,
            self.listen.source,
            self.cores.value,
            self.cores.source,
            text(&self.memory.value.to_string()),
            self.memory.source,
            text(&self.log_level.value),
            self.log_level.source,
            self.insecure.value,
            self.insecure.source,
        )
    }
}

impl File {
    fn read(path: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(path)
            .map_err(|e| Failure::configuration(format_args!("cannot read {}: {e}", path.display())))?;
        toml::from_str(&text).map_err(|e| {
            Failure::configuration(format_args!("{}: {}", path.display(), e.to_string().trim_end()))
        })
    }
}

struct Merge<'a> {
    matches: &'a ArgMatches,
}

impl Merge<'_> {
    fn pick<T>(
        &self,
        id: &str,
        given: Option<T>,
        in_file: Option<T>,
        default: impl FnOnce() -> T,
    ) -> Setting<T> {
        match (given, in_file) {
            (Some(value), _) => {
                let source = match self.matches.value_source(id) {
                    Some(ValueSource::EnvVariable) => Source::Environment,
                    _ => Source::Flag,
                };
                Setting { value, source }
            }
            (None, Some(value)) => Setting { value, source: Source::File },
            (None, None) => Setting { value: default(), source: Source::Default },
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, FromArgMatches as _};

    use super::*;
    use crate::cli::{Cli, Command};

    const MACHINE: Machine = Machine { cores: 4, memory: ByteSize(8 << 30) };

    fn resolve(flags: &[&str], file: Option<&str>) -> Result<Settings, Failure> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("highwater.toml");
        let mut line = vec!["highwater".to_owned(), "start".to_owned()];
        line.extend(flags.iter().map(ToString::to_string));
        if let Some(text) = file {
            fs::write(&path, text).expect("a writable temporary directory");
            line.extend(["--config".to_owned(), path.to_string_lossy().into_owned()]);
        }
        let matches = Cli::command().try_get_matches_from(line).expect("right flags");
        let cli = Cli::from_arg_matches(&matches).expect("right flags");
        let Command::Start(args) = &cli.command else { panic!("not start") };
        let (_, start) = matches.subcommand().expect("start");
        Settings::resolve(args, cli.log_level.as_ref(), start, MACHINE)
    }

    #[test]
    fn without_anything_said_the_defaults_hold() {
        let settings = resolve(&[], None).expect("defaults are right");
        assert_eq!(settings.data_dir.value, PathBuf::from(DATA_DIR_DEFAULT));
        assert_eq!(settings.listen.value, ["127.0.0.1:9191".parse().expect("a literal")]);
        assert_eq!(settings.cores.value, 4);
        assert_eq!(settings.memory.value, ByteSize(2 << 30));
        assert!(!settings.insecure.value);
        assert_eq!(settings.cores.source, Source::Default);
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let file = "cores = 3\nmemory = \"1GiB\"\nlisten = \"127.0.0.1:1\"\nlog_level = \"info\"\n";
        let settings = resolve(&["--cores", "2"], Some(file)).expect("all right");
        assert_eq!(settings.cores, Setting { value: 2, source: Source::Flag });
        assert_eq!(settings.memory, Setting { value: ByteSize(1 << 30), source: Source::File });
        assert_eq!(settings.listen.source, Source::File);
        assert_eq!(settings.log_level, Setting { value: "info".into(), source: Source::File });
        assert_eq!(settings.data_dir.source, Source::Default);
    }

    #[test]
    fn what_is_printed_is_a_configuration_file_that_says_the_same() {
        let settings =
            resolve(&["--listen", "127.0.0.1:0,[::1]:0", "--advertise", "a\"b:1"], None).expect("all right");
        let again = resolve(&[], Some(&settings.to_toml())).expect("our own file");
        assert_eq!(again.listen.value, settings.listen.value);
        assert_eq!(again.advertise.value, settings.advertise.value);
        assert_eq!(again.memory.value, settings.memory.value);
        assert_eq!(again.cores.source, Source::File);
    }

    #[test]
    fn a_mistyped_or_wrong_entry_names_the_file() {
        for file in
            ["core = 3", "cores = \"many\"", "memory = \"lots\"", "listen = 5", "cores = 0", "not toml"]
        {
            let Err(Failure::Said { code, message }) = resolve(&[], Some(file)) else {
                panic!("{file} passed")
            };
            assert_eq!(code, crate::failure::CONFIGURATION);
            assert!(message.contains("highwater.toml") || message.contains("cores"), "{file}: {message}");
        }
        assert!(resolve(&["--config", "/nonexistent/highwater.toml"], None).is_err());
    }

    #[test]
    fn listening_beyond_this_machine_has_to_be_said_twice() {
        assert!(resolve(&["--listen", "0.0.0.0:0"], None).is_err());
        assert!(resolve(&["--listen", "0.0.0.0:0", "--insecure"], None).is_ok());
        assert!(resolve(&["--listen", "0.0.0.0:0", "--insecure=false"], None).is_err());
        assert!(resolve(&["--listen", "[::1]:0"], None).is_ok());
    }

    #[test]
    fn more_cores_than_there_are_is_an_error() {
        assert!(resolve(&["--cores", "5"], None).is_err());
        assert!(resolve(&["--cores", "4"], None).is_ok());
    }
}
