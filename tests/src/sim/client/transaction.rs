//! Transactions of a client: transfers and audits of accounts, and lists.

use std::collections::BTreeMap;

use lode_net::wire::{
    BatchBuilder, BatchWrite, RangeView, ReadView, ReplyView, RequestView, ScanView, Status, TransactionId,
};

use super::super::history::History;
use super::super::node::is_in_memory;
use super::super::work::{Ask, End, Keys, OpId, account_version, account_writer, balance_of, beyond_list};
use super::{Open, PAGE_BYTES, Part, SimClient, Tag, writer_of};
use crate::value;

/// Most records of accounts, or of a list.
const MOST_RECORDS: u32 = 100;

impl SimClient {
    /// One more answer of a transaction: goes on, or says how it ended.
    pub(super) fn transaction(
        &mut self,
        id: OpId,
        part: Part,
        status: Status,
        view: ReplyView<'_>,
        history: &mut History,
    ) -> Result<Option<End>, String> {
        let ask = history.op(id).ask.clone();
        match (&ask, part, status) {
            (Ask::Transfer { from, to, .. }, Part::Begin, Status::Ok) => {
                let transaction = self.begun(id, view);
                for (key, part) in [(from, Part::From), (to, Part::To)] {
                    let read = ReadView::Get { key };
                    self.submit(key, (id, part), |target| RequestView::Within { target, transaction, read });
                }
                Ok(None)
            }
            (Ask::Transfer { from, to, amount }, Part::From | Part::To, Status::Ok) => {
                let key = if part == Part::From { from } else { to };
                let version = value::version(key, view.body);
                let version =
                    version.ok_or_else(|| format!("the value of {} is damaged", key.escape_ascii()))?;
                let open = self.open.get_mut(&id).expect("it was looked up");
                *(if part == Part::From { &mut open.from } else { &mut open.to }) = Some(version);
                if let (Some(from_version), Some(to_version), false) =
                    (open.from, open.to, open.is_committing)
                {
                    open.is_committing = true;
                    let transaction = open.transaction;
                    let balances = (balance_of(from_version), balance_of(to_version));
                    self.commit(id, transaction, (from, to), balances, *amount);
                }
                Ok(None)
            }
            (Ask::Transfer { .. }, Part::Commit, Status::Ok) => {
                Ok(Some(End::Written { seq: view.header.seq, existed: true }))
            }
            (Ask::Audit, Part::Begin, Status::Ok) => {
                let transaction = self.begun(id, view);
                let (start, end) = Keys::account_range();
                self.read_all(id, transaction, RangeView { start, end: Some(end) });
                Ok(None)
            }
            (Ask::SignList { .. } | Ask::ReadList { .. }, ..) => {
                self.list((id, part), &ask, status, view, history)
            }
            (Ask::Audit, Part::All, Status::Ok) => {
                let mut total = 0;
                for record in view.records() {
                    let record = record.map_err(|error| error.to_string())?;
                    let version = value::version(record.key, record.value);
                    let version = version.ok_or("the value of an account is damaged")?;
                    history.saw_account(id, record.key, account_writer(version));
                    total += balance_of(version);
                }
                self.roll_back(id, history);
                Ok(Some(End::Total(total)))
            }
            (_, part, status) => Err(format!("its {part:?} was answered {status:?}: {}", view.message())),
        }
    }

    fn begun(&mut self, id: OpId, view: ReplyView<'_>) -> TransactionId {
        let transaction = TransactionId(view.header.aux);
        self.open.get_mut(&id).expect("it was looked up").transaction = transaction;
        transaction
    }

    fn commit(
        &mut self,
        id: OpId,
        transaction: TransactionId,
        (from, to): (&[u8], &[u8]),
        (has, gets): (u64, u64),
        amount: u64,
    ) {
        let amount = amount.min(has);
        let mut batch = BatchBuilder::new();
        for (key, balance) in [(from, has - amount), (to, gets + amount)] {
            let value = value::make(key, account_version(id, balance), 40);
            batch.push(BatchWrite::Put { key, value: &value });
        }
        let batch = batch.view();
        self.submit(from, (id, Part::Commit), |target| RequestView::Commit { target, transaction, batch });
    }

    pub(super) fn roll_back(&mut self, id: OpId, history: &History) {
        if self.needs_map(&history.op(id).ask) {
            return;
        }
        let transaction = self.open[&id].transaction;
        let key = match &history.op(id).ask {
            Ask::Transfer { from, .. } => from.clone(),
            Ask::SignList { list, .. } | Ask::ReadList { list } => list.clone(),
            _ => Keys::account_range().0.to_vec(),
        };
        let request = |target| RequestView::Rollback { target, transaction };
        self.submit(&key, (id, Part::Rollback), request);
    }

    pub(super) fn begin(&mut self, id: OpId, key: &[u8], read_only: bool) {
        let request = |target| RequestView::Begin { target, read_only, lifetime_ms: 0 };
        self.submit(key, (id, Part::Begin), request);
    }

    /// Reads all records of a range in a transaction.
    fn read_all(&mut self, id: OpId, transaction: TransactionId, range: RangeView<'_>) {
        let (limit, byte_budget) = (MOST_RECORDS, PAGE_BYTES);
        let scan = ScanView { range, reverse: false, keys_only: false, ttls: false, limit, byte_budget };
        let read = ReadView::Scan(scan);
        let request = |target| RequestView::Within { target, transaction, read };
        self.submit(range.start, (id, Part::All), request);
    }

    /// One more answer of a transaction on a list.
    fn list(
        &mut self,
        (id, part): Tag,
        ask: &Ask,
        status: Status,
        view: ReplyView<'_>,
        history: &mut History,
    ) -> Result<Option<End>, String> {
        let (Ask::SignList { list, .. } | Ask::ReadList { list }) = ask else {
            unreachable!("only what is about a list comes here");
        };
        // The table may have been dropped meanwhile, and its transactions with it.
        if part != Part::Commit && self.needs_map(ask) {
            return Ok(Some(End::IsNot));
        }
        match (part, status) {
            (Part::Begin, Status::Ok) => {
                let transaction = self.begun(id, view);
                let beyond = beyond_list(list);
                let range = RangeView { start: list, end: Some(&beyond) };
                self.read_all(id, transaction, range);
                let read = ReadView::Count { range };
                let request = |target| RequestView::Within { target, transaction, read };
                self.submit(list, (id, Part::Count), request);
                return Ok(None);
            }
            (Part::All, Status::Ok) => {
                let mut found = BTreeMap::new();
                for record in view.records() {
                    let record = record.map_err(|error| error.to_string())?;
                    found.insert(record.key.to_vec(), writer_of(record.key, record.value)?);
                }
                self.open.get_mut(&id).expect("it was looked up").found = Some(found.len() as u64);
                history.saw_list(id, found);
            }
            (Part::Count, Status::Ok) => {
                self.open.get_mut(&id).expect("it was looked up").counted = Some(view.header.aux);
            }
            (Part::Commit, Status::Ok) => {
                return Ok(Some(End::Written { seq: view.header.seq, existed: true }));
            }
            (part, status) => {
                return Err(format!("its {part:?} was answered {status:?}: {}", view.message()));
            }
        }
        let Open { found: Some(found), counted: Some(counted), transaction, .. } = self.open[&id] else {
            return Ok(None);
        };
        // A compact index goes on counting what it cannot read where its key is written anew.
        let may_be_more = self.is_compact && !is_in_memory(list) && history.has_damage();
        if counted < found || (counted > found && !may_be_more) {
            return Err(format!("one instant has {found} records of the list, and {counted} are counted"));
        }
        match ask {
            Ask::SignList { place, strike, .. } => self.sign((id, transaction), place, strike.as_deref()),
            _ => {
                self.roll_back(id, history);
                return Ok(Some(End::Listed));
            }
        }
        Ok(None)
    }

    fn sign(&mut self, (id, transaction): (OpId, TransactionId), place: &[u8], strike: Option<&[u8]>) {
        let mut batch = BatchBuilder::new();
        let value = value::make(place, id.0, 40);
        batch.push(BatchWrite::Put { key: place, value: &value });
        if let Some(key) = strike.filter(|key| *key != place) {
            batch.push(BatchWrite::Delete { key });
        }
        let batch = batch.view();
        self.submit(place, (id, Part::Commit), |target| RequestView::Commit { target, transaction, batch });
    }
}
