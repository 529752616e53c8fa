//! A MariaDB on a volume, with transfers between accounts: the sum of all balances never changes. Each of several
//! clients writes a row of its own into the ledger with every transfer, in the same transaction.

use anyhow::{Context, Result, ensure};
use ashlar_tests::{Ledger, MariaDb, last_row};

const ACCOUNTS: u64 = 100;
const BALANCE: u64 = 1000;
const CLIENTS: u64 = 4;

pub fn create_tables(server: &MariaDb) -> Result<()> {
    let accounts: Vec<String> = (0..ACCOUNTS).map(|account| format!("({account}, {BALANCE})")).collect();
    let statements = format!(
        "CREATE DATABASE bank; USE bank; \
         CREATE TABLE accounts (id INT PRIMARY KEY, balance BIGINT NOT NULL) ENGINE=InnoDB; \
         CREATE TABLE ledger (client INT, n BIGINT, seal BINARY(32) NOT NULL, PRIMARY KEY (client, n)) ENGINE=InnoDB; \
         INSERT INTO accounts VALUES {}",
        accounts.join(", ")
    );
    server.query(&statements).map(drop)
}

/// Clients at work.
pub struct Transfers(Vec<Ledger>);

impl Transfers {
    pub fn start(server: &MariaDb) -> Result<Transfers> {
        let clients =
            (0..CLIENTS).map(|client| Ledger::start(server.client("bank"), 0, move |row| transfer(client, row)));
        Ok(Transfers(clients.collect::<Result<_>>()?))
    }

    /// The last row that each client has seen committed.
    pub fn seen(&self) -> Vec<u64> {
        self.0.iter().map(Ledger::seen).collect()
    }

    /// Waits until each client has committed so many more.
    pub fn wait_for_more(&self, rows: u64) -> Result<()> {
        self.0.iter().try_for_each(|client| client.wait_for_more(rows))
    }

    pub fn stop(self) -> Result<Vec<u64>> {
        self.0.into_iter().map(Ledger::stop).collect()
    }
}

/// Accounts are always locked in ascending order, else clients would wait for each other in a circle.
fn transfer(client: u64, row: u64) -> String {
    let first = (row * 7 + client * 13) % (ACCOUNTS - 1);
    let second = first + 1 + row % (ACCOUNTS - 1 - first);
    let amount = 1 + row % 9;
    format!(
        "BEGIN; UPDATE accounts SET balance = balance - {amount} WHERE id = {first}; \
         UPDATE accounts SET balance = balance + {amount} WHERE id = {second}; \
         INSERT INTO ledger VALUES ({client}, {row}, UNHEX(SHA2({row}, 256))); COMMIT; \
         SELECT n FROM ledger WHERE client = {client} AND n = {row};"
    )
}

/// Tables whole, sum as ever, of each client every row up to `seen` and none after the one that follows `seen_after`.
pub fn verify(server: &MariaDb, seen: &[u64], seen_after: &[u64]) -> Result<u64> {
    server.check_tables(["bank.accounts", "bank.ledger", "mysql.global_priv"].map(str::to_owned))?;
    let sum = server.query("SELECT SUM(balance), COUNT(*) FROM bank.accounts")?;
    ensure!(sum.trim() == format!("{}\t{ACCOUNTS}", ACCOUNTS * BALANCE), "the sum of balances is {sum:?}");
    let mut rows = 0;
    for (client, (&seen, &seen_after)) in seen.iter().zip(seen_after).enumerate() {
        let printed = server.query(&format!(
            "SELECT n FROM bank.ledger WHERE client = {client} AND seal = UNHEX(SHA2(n, 256)) ORDER BY n"
        ))?;
        rows += last_row(&printed, seen..=seen_after + 1).with_context(|| format!("client {client}"))?;
    }
    Ok(rows)
}
