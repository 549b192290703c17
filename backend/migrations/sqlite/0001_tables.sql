CREATE TABLE IF NOT EXISTS {machines} (
  {machines.id} integer PRIMARY KEY AUTOINCREMENT,
  {machines.serial_no} text NOT NULL,
  {machines.last_heard_at} text NULL,
  {machines.temperature} real NULL,
  {machines.current_page} integer NULL,
  {machines.offline_at} text NULL,
  {machines.api_token_hash} text NULL,
  {machines.api_token_issued_at} text NULL,
  {machines.created_at} text NULL,
  {machines.updated_at} text NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS machines_serial_no_unique ON {machines} ({machines.serial_no});
CREATE INDEX IF NOT EXISTS machines_last_heard_at_index ON {machines} ({machines.last_heard_at});

CREATE TABLE IF NOT EXISTS {machine_logs} (
  {machine_logs.id} integer PRIMARY KEY AUTOINCREMENT,
  {machine_logs.machine_id} integer NOT NULL,
  {machine_logs.level} text NOT NULL,
  {machine_logs.code} text NOT NULL,
  {machine_logs.message} text NOT NULL,
  {machine_logs.slot_no} integer NULL,
  {machine_logs.payload} text NULL,
  {machine_logs.logged_at} text NULL,
  {machine_logs.created_at} text NULL,
  {machine_logs.updated_at} text NULL,
  FOREIGN KEY ({machine_logs.machine_id}) REFERENCES {machines} ({machines.id})
);
CREATE INDEX IF NOT EXISTS machine_logs_machine_id_logged_at_index ON {machine_logs} ({machine_logs.machine_id}, {machine_logs.logged_at});

CREATE TABLE IF NOT EXISTS {machine_slots} (
  {machine_slots.id} integer PRIMARY KEY AUTOINCREMENT,
  {machine_slots.machine_id} integer NOT NULL,
  {machine_slots.slot_no} integer NOT NULL,
  {machine_slots.product_id} text NULL,
  {machine_slots.stock} integer NOT NULL DEFAULT 0,
  {machine_slots.created_at} text NULL,
  {machine_slots.updated_at} text NULL,
  FOREIGN KEY ({machine_slots.machine_id}) REFERENCES {machines} ({machines.id})
);
CREATE UNIQUE INDEX IF NOT EXISTS machine_slots_machine_id_slot_no_unique ON {machine_slots} ({machine_slots.machine_id}, {machine_slots.slot_no});

CREATE TABLE IF NOT EXISTS {transactions} (
  {transactions.id} integer PRIMARY KEY AUTOINCREMENT,
  {transactions.machine_id} integer NOT NULL,
  {transactions.transaction_id} text NOT NULL,
  {transactions.slot_no} integer NOT NULL,
  {transactions.amount} text NOT NULL,
  {transactions.quantity} integer NOT NULL DEFAULT 1,
  {transactions.product_id} text NULL,
  {transactions.payment_type} text NULL,
  {transactions.status} text NULL,
  {transactions.payload} text NULL,
  {transactions.sold_at} text NULL,
  {transactions.created_at} text NULL,
  {transactions.updated_at} text NULL,
  FOREIGN KEY ({transactions.machine_id}) REFERENCES {machines} ({machines.id})
);
CREATE UNIQUE INDEX IF NOT EXISTS transactions_machine_id_transaction_id_unique ON {transactions} ({transactions.machine_id}, {transactions.transaction_id});
CREATE INDEX IF NOT EXISTS transactions_sold_at_index ON {transactions} ({transactions.sold_at});

CREATE TABLE IF NOT EXISTS {machine_commands} (
  {machine_commands.id} integer PRIMARY KEY AUTOINCREMENT,
  {machine_commands.message_id} text NOT NULL,
  {machine_commands.serial_no} text NOT NULL,
  {machine_commands.command} text NOT NULL,
  {machine_commands.payload} text NOT NULL,
  {machine_commands.state} text NOT NULL,
  {machine_commands.reason} text NULL,
  {machine_commands.expires_at} text NULL,
  {machine_commands.pushed_at} text NULL,
  {machine_commands.sent_at} text NULL,
  {machine_commands.settled_at} text NULL,
  {machine_commands.created_at} text NULL,
  {machine_commands.updated_at} text NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS machine_commands_message_id_unique ON {machine_commands} ({machine_commands.message_id});
CREATE INDEX IF NOT EXISTS machine_commands_state_pushed_at_index ON {machine_commands} ({machine_commands.state}, {machine_commands.pushed_at});
CREATE INDEX IF NOT EXISTS machine_commands_serial_no_index ON {machine_commands} ({machine_commands.serial_no});

CREATE TABLE IF NOT EXISTS {machine_alerts} (
  {machine_alerts.id} integer PRIMARY KEY AUTOINCREMENT,
  {machine_alerts.serial_no} text NOT NULL,
  {machine_alerts.kind} text NOT NULL,
  {machine_alerts.code} text NOT NULL,
  {machine_alerts.level} text NOT NULL,
  {machine_alerts.message} text NOT NULL,
  {machine_alerts.details} text NOT NULL,
  {machine_alerts.occurrences} integer NOT NULL,
  {machine_alerts.state} text NOT NULL,
  {machine_alerts.attempts} integer NOT NULL,
  {machine_alerts.raised_at} text NULL,
  {machine_alerts.next_attempt_at} text NULL,
  {machine_alerts.told_at} text NULL,
  {machine_alerts.created_at} text NULL,
  {machine_alerts.updated_at} text NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS machine_alerts_serial_no_kind_code_unique ON {machine_alerts} ({machine_alerts.serial_no}, {machine_alerts.kind}, {machine_alerts.code});
CREATE INDEX IF NOT EXISTS machine_alerts_state_next_attempt_at_index ON {machine_alerts} ({machine_alerts.state}, {machine_alerts.next_attempt_at});

CREATE TABLE IF NOT EXISTS {listener_progress} (
  {listener_progress.listener} text NOT NULL,
  {listener_progress.lane} integer NOT NULL,
  {listener_progress.epoch} integer NOT NULL,
  {listener_progress.batch} integer NOT NULL,
  {listener_progress.size} integer NOT NULL,
  {listener_progress.lanes} integer NOT NULL,
  {listener_progress.done} integer NOT NULL,
  {listener_progress.updated_at} text NULL,
  PRIMARY KEY ({listener_progress.listener}, {listener_progress.lane})
);
