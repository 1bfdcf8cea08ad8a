//! A connection to a node for as long as a command takes, and what the client's errors mean for the exit code.

use std::future::Future;

use lode_net::client::connection::ConnectionError;
use lode_net::client::{
    BatchError, CheckpointError, Client, ClientOptions, ClientTls, ConnectError, CountError, GetError,
    IncrementError, ScanError, StatsError, TableError, Token, TransactionError, WriteError,
};
use lode_net::wire::Status;
use tokio::runtime::{Builder, Runtime};

use super::args::Global;
use super::exit::{Exit, Failure};

/// How much the command asks of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// One request after the other.
    Light,
    /// As much as goes.
    Heavy,
}

/// A client and the runtime it lives on.
pub struct Session {
    runtime: Runtime,
    addr: String,
    options: ClientOptions,
    /// The client.
    pub client: Client,
}

impl Session {
    /// Connects to the node of the command line.
    pub fn connect(global: &Global, load: Load) -> Result<Session, Failure> {
        let runtime = runtime(load)?;
        let options = ClientOptions {
            request_timeout: global.timeout.0,
            connect_timeout: global.timeout.0,
            name: "lode".to_owned(),
            token: token(global)?,
            tls: tls(global)?,
            ..ClientOptions::default()
        };
        let addr = global.node.clone();
        let client = runtime.block_on(Client::connect(&addr, options.clone()))?;
        Ok(Session { runtime, addr, options, client })
    }

    /// Connects once more: the node answers, and has recovered.
    pub fn handshake(&self) -> Result<(), Failure> {
        self.wait(Client::connect(&self.addr, self.options.clone())).map(|_| ())
    }

    /// Waits for a call of the client.
    pub fn wait<T, E: Into<Failure>>(&self, call: impl Future<Output = Result<T, E>>) -> Result<T, Failure> {
        self.runtime.block_on(call).map_err(Into::into)
    }

    /// Waits for anything.
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// The tables, as the client's map has them.
    pub fn table_names(&self) -> Vec<String> {
        let map = self.client.map();
        let mut names: Vec<String> = map.tables().iter().map(|table| table.name.clone()).collect();
        names.sort_unstable();
        names
    }

    /// Whether the node has this table; asks the node.
    pub fn has_table(&self, name: &str) -> Result<bool, Failure> {
        Ok(self.wait(self.client.list_tables())?.iter().any(|table| table.name == name))
    }
}

/// The token of the command line or of the environment; none where neither names one.
pub fn token(global: &Global) -> Result<Option<Token>, Failure> {
    let found = match (&global.token_file, std::env::var("LODE_TOKEN")) {
        (Some(path), _) => Token::read(path),
        (None, Ok(secret)) => Token::new(&secret),
        (None, Err(_)) => return Ok(None),
    };
    found.map(Some).map_err(|error| Failure::new(Exit::Usage, error))
}

/// Whom the command line trusts; nothing where it does not speak TLS.
pub fn tls(global: &Global) -> Result<Option<ClientTls>, Failure> {
    let found = match (&global.tls_ca, global.tls) {
        (Some(path), _) => ClientTls::trusting(path),
        (None, true) => ClientTls::of_system(),
        (None, false) => return Ok(None),
    };
    found.map(Some).map_err(|error| Failure::new(Exit::Usage, error))
}

/// The runtime of a command.
pub fn runtime(load: Load) -> Result<Runtime, Failure> {
    let mut builder = match load {
        Load::Light => Builder::new_current_thread(),
        Load::Heavy => Builder::new_multi_thread(),
    };
    builder.enable_all().build().map_err(|error| Failure::new(Exit::Input, error))
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Failure {
        let exit = match &error {
            ConnectError::Refused { source: ConnectionError::Refused { status, .. }, .. }
                if *status == Status::Unauthenticated =>
            {
                Exit::Refused
            }
            _ => Exit::CannotConnect,
        };
        Failure::new(exit, error)
    }
}

/// Reads change nothing, so all of them fail alike.
macro_rules! read_failure {
    ($($name:ident),*) => {
        $(impl From<$name> for Failure {
            fn from(error: $name) -> Failure {
                let exit = match &error {
                    $name::Unreachable(_) => Exit::CannotConnect,
                    $name::Timeout { .. } => Exit::Unknown,
                    $name::Corrupt { .. } | $name::Quarantined { .. } => Exit::VerificationFailed,
                    _ => Exit::Refused,
                };
                Failure::new(exit, error)
            }
        })*
    };
}

read_failure!(GetError, ScanError, CountError);

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Failure {
        let exit = match &error {
            WriteError::ConditionFailed { .. } => Exit::NotFound,
            WriteError::Unreachable(_) => Exit::CannotConnect,
            WriteError::Timeout { .. } | WriteError::Unknown { .. } | WriteError::Poisoned => Exit::Unknown,
            WriteError::Corrupt { .. } | WriteError::MayReturn { .. } | WriteError::Quarantined { .. } => {
                Exit::VerificationFailed
            }
            _ => Exit::Refused,
        };
        Failure::new(exit, error)
    }
}

impl From<IncrementError> for Failure {
    fn from(error: IncrementError) -> Failure {
        match error {
            IncrementError::Write(error) => error.into(),
            other => Failure::new(Exit::Refused, other),
        }
    }
}

impl From<BatchError> for Failure {
    fn from(error: BatchError) -> Failure {
        match error {
            BatchError::Write(error) => error.into(),
            other => Failure::new(Exit::Refused, other),
        }
    }
}

impl From<TransactionError> for Failure {
    fn from(error: TransactionError) -> Failure {
        match error {
            TransactionError::Read(error) => error.into(),
            TransactionError::Write(error) => error.into(),
            other => Failure::new(Exit::Refused, other),
        }
    }
}

impl From<TableError> for Failure {
    fn from(error: TableError) -> Failure {
        let exit = match &error {
            TableError::Unreachable(_) => Exit::CannotConnect,
            TableError::Unknown(_) | TableError::Timeout(_) | TableError::Poisoned => Exit::Unknown,
            _ => Exit::Refused,
        };
        Failure::new(exit, error)
    }
}

impl From<StatsError> for Failure {
    fn from(error: StatsError) -> Failure {
        let exit = match &error {
            StatsError::Unreachable(_) => Exit::CannotConnect,
            StatsError::Timeout(_) => Exit::Unknown,
            StatsError::Refused { .. } | StatsError::BadReply(_) => Exit::Refused,
        };
        Failure::new(exit, error)
    }
}

impl From<CheckpointError> for Failure {
    fn from(error: CheckpointError) -> Failure {
        let exit = match &error {
            CheckpointError::Unreachable(_) => Exit::CannotConnect,
            CheckpointError::Timeout(_) | CheckpointError::Poisoned => Exit::Unknown,
            CheckpointError::NoSpace | CheckpointError::Refused { .. } => Exit::Refused,
        };
        Failure::new(exit, error)
    }
}
