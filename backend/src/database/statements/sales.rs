//! Transactions, and what is left in the slots.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::machines::for_update;
use super::{Dialect, MOST, Text, Tongue, insert, joined, padded};
use crate::database::session::{Statement, Value};
use crate::domain::plan::Sold;
use crate::domain::stock::Slot;
use crate::domain::time::Zone;

/// Rows of transactions, in one statement, so of a size that [`parts`](super::parts) gives. Where one of them is there already it fails as a whole.
#[must_use]
pub fn sales(
    tongue: Tongue<'_>,
    zone: Zone,
    sales: &[Sold],
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
pub fn known(tongue: Tongue<'_>, sales: &[Sold], machines: &HashMap<String, i64>) -> Vec<Statement> {
    let wanted: Vec<[Value; 2]> = sales
        .iter()
        .filter_map(|sold| Some([(*machines.get(&sold.serial_no)?).into(), sold.sale.transaction_id.as_str().into()]))
        .collect();
    let select = "SELECT {transactions.machine_id}, {transactions.transaction_id} FROM {transactions}";
    let pair = "({transactions.machine_id} = ? AND {transactions.transaction_id} = ?)";
    wanted.chunks(MOST).map(|wanted| of_pairs(tongue, select, pair, wanted).done()).collect()
}

/// What slots hold: machine, slot, stock. The rows are this transaction's until it ends.
#[must_use]
pub fn stock(tongue: Tongue<'_>, slots: &BTreeSet<Slot>) -> Vec<Statement> {
    let wanted: Vec<[Value; 2]> = slots.iter().map(|(machine, slot)| [(*machine).into(), (*slot).into()]).collect();
    let select =
        "SELECT {machine_slots.machine_id}, {machine_slots.slot_no}, {machine_slots.stock} FROM {machine_slots}";
    let pair = "({machine_slots.machine_id} = ? AND {machine_slots.slot_no} = ?)";
    wanted.chunks(MOST).map(|wanted| for_update(of_pairs(tongue, select, pair, wanted), tongue)).collect()
}

/// Of rows that are named by two columns. Pair by pair: a list of pairs is read row by row in MariaDB, by no index.
fn of_pairs(tongue: Tongue<'_>, select: &str, pair: &str, wanted: &[[Value; 2]]) -> Text {
    let mut text = Text::of(tongue, select);
    for (number, [first, second]) in padded(wanted.iter().cloned()).into_iter().enumerate() {
        text.raw(if number == 0 { " WHERE " } else { " OR " }).push(tongue, pair).bind(first).bind(second);
    }
    text
}

/// Takes from slots.
#[must_use]
pub fn take(tongue: Tongue<'_>, taken: &BTreeMap<Slot, i64>, now: &str) -> Vec<Statement> {
    let rows: Vec<Vec<Value>> =
        taken.iter().map(|((machine, slot), part)| vec![(*machine).into(), (*slot).into(), (*part).into()]).collect();
    // Each row is changed once, whatever comes twice in what it is joined with.
    rows.chunks(MOST).map(|rows| take_part(tongue, padded(rows.iter().cloned()), now)).collect()
}

fn take_part(tongue: Tongue<'_>, rows: Vec<Vec<Value>>, now: &str) -> Statement {
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
    text.done()
}
