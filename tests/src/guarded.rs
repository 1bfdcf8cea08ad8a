//! A real node that wants tokens, and those that it knows.

use std::path::PathBuf;
use std::process::Command;

use lode_net::client::blocking::Client;
use lode_net::client::{ClientOptions, ConnectError, Token};
use rustix::process::{Pid, Signal, kill_process};

use crate::node::{Home, Node, binary, until};
use crate::table;

/// A node with tokens, and the secret of the one that may everything.
pub struct Guarded {
    /// Its drive and its options.
    pub home: Home,
    /// Whose token is `root`.
    pub admin: String,
}

impl Guarded {
    /// A small drive, a RESP door, and these options.
    pub fn new(more: &[&str]) -> Guarded {
        let options = ["--size", "192MiB", "--shards", "2", "--memory", "128MiB", "--tokens", "tokens.toml"];
        let home = Home::with(&[&options[..], &["--redis", "127.0.0.1:0"], more].concat());
        let mut guarded = Guarded { home, admin: String::new() };
        guarded.admin = guarded.make("root", &["--admin", "*", "--read", "*", "--write", "*"]);
        guarded
    }

    /// The file of tokens.
    pub fn tokens(&self) -> PathBuf {
        self.home.drive().with_file_name("tokens.toml")
    }

    /// Makes a token, and gives its secret.
    pub fn make(&self, name: &str, rights: &[&str]) -> String {
        let output = Command::new(binary())
            .args(["token", "make", name, "--tokens"])
            .arg(self.tokens())
            .args(rights)
            .output()
            .expect("the binary runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    /// A node with tables `mine` and `other`, each with a record.
    pub fn start(&self) -> Node {
        let node = self.home.start();
        let mut client = connect(&node, &self.admin).expect("root is known");
        for name in ["mine", "other"] {
            client.create_table(table::durable(name, 4)).expect("the table is new");
            client.put(name, b"k", b"v").expect("root may write");
        }
        node
    }
}

/// A client with this secret; with none where it is empty.
pub fn connect(node: &Node, secret: &str) -> Result<Client, ConnectError> {
    let token = (!secret.is_empty()).then(|| Token::new(secret).expect("a secret"));
    let options = ClientOptions { token, retries: 0, ..ClientOptions::default() };
    Client::connect(&node.addr.to_string(), options)
}

/// Tells a node to read again what may change.
pub fn hang_up(node: &Node) {
    kill_process(Pid::from_raw(node.pid() as i32).expect("a process"), Signal::HUP).expect("it runs");
}

/// Waits until this is so.
#[track_caller]
pub fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    until(what, || so().then_some(()));
}
