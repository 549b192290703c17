//! Transactions, and what is left in the slots.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::machines::for_update;
use super::{Dialect, Text, Tongue, insert, joined};
use crate::database::session::{Statement, Value};
use crate::domain::plan::Sold;
use crate::domain::stock::Slot;
use crate::domain::time::Zone;

/// Rows of transactions, in one statement. Where one of them is there already it fails as a whole.
#[must_use]
pub fn sales(
    tongue: Tongue<'_>,
    zone: Zone,
    sales: &[&Sold],
    machines: &HashMap<String, i64>,
    now: &str,
) -> Option<Statement> {
    let rows: Vec<Vec<Value>> = sales
        .iter()
        .filter_map(|sold| {
            let sale = &sold.sale;
            Some(vec![
                (*machines.get(&sold.serial_no)?).into(),
                sale.transaction_id.as_str().into(),
                sale.slot_no.into(),
                sale.amount.as_str().into(),
                sale.quantity.into(),
                sale.product_id.as_deref().into(),
                sale.payment_type.as_deref().into(),
                sale.status.as_deref().into(),
                sale.payload.as_str().into(),
                zone.write(sold.at).into(),
                now.into(),
                now.into(),
            ])
        })
        .collect();
    let columns = [
        "machine_id",
        "transaction_id",
        "slot_no",
        "amount",
        "quantity",
        "product_id",
        "payment_type",
        "status",
        "payload",
        "sold_at",
        "created_at",
        "updated_at",
    ];
    (!rows.is_empty()).then(|| insert(tongue, "transactions", &columns, rows))
}

/// Which of them are there already: machine, transaction.
#[must_use]
pub fn known(tongue: Tongue<'_>, sales: &[Sold], machines: &HashMap<String, i64>) -> Option<Statement> {
    let mut wanted: BTreeMap<i64, BTreeSet<&str>> = BTreeMap::new();
    for sold in sales {
        if let Some(machine) = machines.get(&sold.serial_no) {
            wanted.entry(*machine).or_default().insert(&sold.sale.transaction_id);
        }
    }
    let mut text =
        Text::of(tongue, "SELECT {transactions.machine_id}, {transactions.transaction_id} FROM {transactions} WHERE ");
    let any = !wanted.is_empty();
    // Machine by machine: MariaDB reads a list of pairs row by row.
    for (number, (machine, ids)) in wanted.into_iter().enumerate() {
        text.raw(if number == 0 { "" } else { " OR " });
        text.push(tongue, "({transactions.machine_id} = ? AND {transactions.transaction_id} IN (").bind(machine);
        text.list(ids).raw("))");
    }
    any.then(|| text.done())
}

/// What slots hold: machine, slot, stock. The rows are this transaction's until it ends.
#[must_use]
pub fn stock(tongue: Tongue<'_>, slots: &BTreeSet<Slot>) -> Option<Statement> {
    let mut wanted: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for (machine, slot) in slots {
        wanted.entry(*machine).or_default().push(*slot);
    }
    let mut text = Text::of(
        tongue,
        "SELECT {machine_slots.machine_id}, {machine_slots.slot_no}, {machine_slots.stock} FROM {machine_slots} WHERE ",
    );
    let any = !wanted.is_empty();
    for (number, (machine, slots)) in wanted.into_iter().enumerate() {
        text.raw(if number == 0 { "" } else { " OR " });
        text.push(tongue, "({machine_slots.machine_id} = ? AND {machine_slots.slot_no} IN (").bind(machine);
        text.list(slots).raw("))");
    }
    any.then(|| for_update(text, tongue))
}

/// Slots that hold so many, where a machine does not have them.
#[must_use]
pub fn fill(tongue: Tongue<'_>, slots: impl IntoIterator<Item = Slot>, stock: i64, now: &str) -> Statement {
    let rows = slots
        .into_iter()
        .map(|(machine, slot)| vec![machine.into(), slot.into(), stock.into(), now.into(), now.into()]);
    let columns = ["machine_id", "slot_no", "stock", "created_at", "updated_at"];
    let mut statement = insert(tongue, "machine_slots", &columns, rows);
    statement.sql.push_str(&match tongue.dialect {
        Dialect::MySql => tongue.names.fill(" ON DUPLICATE KEY UPDATE {machine_slots.stock} = {machine_slots.stock}"),
        Dialect::Sqlite => " ON CONFLICT DO NOTHING".to_owned(),
    });
    statement
}

/// Takes from slots, in one statement.
#[must_use]
pub fn take(tongue: Tongue<'_>, taken: &BTreeMap<Slot, i64>, now: &str) -> Option<Statement> {
    if taken.is_empty() {
        return None;
    }
    let rows: Vec<Vec<Value>> =
        taken.iter().map(|((machine, slot), part)| vec![(*machine).into(), (*slot).into(), (*part).into()]).collect();
    let casts = ["SIGNED", "SIGNED", "SIGNED"];
    let on = "{machine_slots}.{machine_slots.machine_id} = h.a AND {machine_slots}.{machine_slots.slot_no} = h.b";
    let touched = |text: &mut Text| {
        if let Some(column) = tongue.names.column("machine_slots", "updated_at") {
            let mine =
                if tongue.dialect == Dialect::MySql { tongue.names.fill("{machine_slots}.") } else { String::new() };
            text.raw(&format!(", {mine}`{column}` = ?")).bind(now);
        }
    };
    let mut text = Text::of(tongue, "UPDATE {machine_slots} ");
    if tongue.dialect == Dialect::MySql {
        text.raw("JOIN (");
        joined(&mut text, tongue.dialect, &casts, rows);
        text.push(tongue, &format!(") AS h ON {on} SET "));
        text.push(tongue, "{machine_slots}.{machine_slots.stock} = {machine_slots}.{machine_slots.stock} - h.c");
        touched(&mut text);
    } else {
        text.push(tongue, "SET {machine_slots.stock} = {machine_slots}.{machine_slots.stock} - h.c");
        touched(&mut text);
        text.raw(" FROM (");
        joined(&mut text, tongue.dialect, &casts, rows);
        text.push(tongue, &format!(") AS h WHERE {on}"));
    }
    Some(text.done())
}
