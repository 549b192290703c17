CREATE TABLE IF NOT EXISTS {machines} (
  {machines.id} bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY,
  {machines.serial_no} varchar(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  {machines.last_heard_at} timestamp(3) NULL DEFAULT NULL,
  {machines.temperature} decimal(8,3) NULL DEFAULT NULL,
  {machines.current_page} bigint NULL DEFAULT NULL,
  {machines.offline_at} timestamp(3) NULL DEFAULT NULL,
  {machines.api_token_hash} char(64) CHARACTER SET ascii COLLATE ascii_bin NULL DEFAULT NULL,
  {machines.api_token_issued_at} timestamp(3) NULL DEFAULT NULL,
  {machines.created_at} timestamp(3) NULL DEFAULT NULL,
  {machines.updated_at} timestamp(3) NULL DEFAULT NULL,
  UNIQUE KEY machines_serial_no_unique ({machines.serial_no}),
  KEY machines_last_heard_at_index ({machines.last_heard_at})
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE IF NOT EXISTS {machine_logs} (
  {machine_logs.id} bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY,
  {machine_logs.machine_id} bigint unsigned NOT NULL,
  {machine_logs.level} varchar(16) NOT NULL,
  {machine_logs.code} varchar(64) NOT NULL,
  {machine_logs.message} mediumtext NOT NULL,
  {machine_logs.slot_no} bigint NULL DEFAULT NULL,
  {machine_logs.payload} longtext NULL DEFAULT NULL,
  {machine_logs.logged_at} timestamp(3) NULL DEFAULT NULL,
  {machine_logs.created_at} timestamp(3) NULL DEFAULT NULL,
  {machine_logs.updated_at} timestamp(3) NULL DEFAULT NULL,
  KEY machine_logs_machine_id_logged_at_index ({machine_logs.machine_id}, {machine_logs.logged_at}),
  CONSTRAINT machine_logs_machine_id_foreign FOREIGN KEY ({machine_logs.machine_id}) REFERENCES {machines} ({machines.id})
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE IF NOT EXISTS {machine_slots} (
  {machine_slots.id} bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY,
  {machine_slots.machine_id} bigint unsigned NOT NULL,
  {machine_slots.slot_no} bigint NOT NULL,
  {machine_slots.product_id} varchar(64) NULL DEFAULT NULL,
  {machine_slots.stock} bigint NOT NULL DEFAULT 0,
  {machine_slots.created_at} timestamp(3) NULL DEFAULT NULL,
  {machine_slots.updated_at} timestamp(3) NULL DEFAULT NULL,
  UNIQUE KEY machine_slots_machine_id_slot_no_unique ({machine_slots.machine_id}, {machine_slots.slot_no}),
  CONSTRAINT machine_slots_machine_id_foreign FOREIGN KEY ({machine_slots.machine_id}) REFERENCES {machines} ({machines.id})
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE IF NOT EXISTS {transactions} (
  {transactions.id} bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY,
  {transactions.machine_id} bigint unsigned NOT NULL,
  {transactions.transaction_id} varchar(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  {transactions.slot_no} bigint NOT NULL,
  {transactions.amount} decimal(20,6) NOT NULL,
  {transactions.quantity} bigint NOT NULL DEFAULT 1,
  {transactions.product_id} varchar(64) NULL DEFAULT NULL,
  {transactions.payment_type} varchar(64) NULL DEFAULT NULL,
  {transactions.status} varchar(64) NULL DEFAULT NULL,
  {transactions.payload} longtext NULL DEFAULT NULL,
  {transactions.sold_at} timestamp(3) NULL DEFAULT NULL,
  {transactions.created_at} timestamp(3) NULL DEFAULT NULL,
  {transactions.updated_at} timestamp(3) NULL DEFAULT NULL,
  UNIQUE KEY transactions_machine_id_transaction_id_unique ({transactions.machine_id}, {transactions.transaction_id}),
  KEY transactions_sold_at_index ({transactions.sold_at}),
  CONSTRAINT transactions_machine_id_foreign FOREIGN KEY ({transactions.machine_id}) REFERENCES {machines} ({machines.id})
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE IF NOT EXISTS {machine_commands} (
  {machine_commands.id} bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY,
  {machine_commands.message_id} varchar(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  {machine_commands.serial_no} varchar(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  {machine_commands.command} varchar(128) NOT NULL,
  {machine_commands.payload} longtext NOT NULL,
  {machine_commands.state} varchar(16) NOT NULL,
  {machine_commands.reason} text NULL DEFAULT NULL,
  {machine_commands.expires_at} timestamp(3) NULL DEFAULT NULL,
  {machine_commands.pushed_at} timestamp(3) NULL DEFAULT NULL,
  {machine_commands.sent_at} timestamp(3) NULL DEFAULT NULL,
  {machine_commands.settled_at} timestamp(3) NULL DEFAULT NULL,
  {machine_commands.created_at} timestamp(3) NULL DEFAULT NULL,
  {machine_commands.updated_at} timestamp(3) NULL DEFAULT NULL,
  UNIQUE KEY machine_commands_message_id_unique ({machine_commands.message_id}),
  KEY machine_commands_state_pushed_at_index ({machine_commands.state}, {machine_commands.pushed_at}),
  KEY machine_commands_serial_no_index ({machine_commands.serial_no})
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE IF NOT EXISTS {machine_alerts} (
  {machine_alerts.id} bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY,
  {machine_alerts.serial_no} varchar(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  {machine_alerts.kind} varchar(16) NOT NULL,
  {machine_alerts.code} varchar(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  {machine_alerts.level} varchar(16) NOT NULL,
  {machine_alerts.message} mediumtext NOT NULL,
  {machine_alerts.details} longtext NOT NULL,
  {machine_alerts.occurrences} bigint NOT NULL,
  {machine_alerts.state} varchar(16) NOT NULL,
  {machine_alerts.attempts} bigint NOT NULL,
  {machine_alerts.raised_at} timestamp(3) NULL DEFAULT NULL,
  {machine_alerts.next_attempt_at} timestamp(3) NULL DEFAULT NULL,
  {machine_alerts.told_at} timestamp(3) NULL DEFAULT NULL,
  {machine_alerts.created_at} timestamp(3) NULL DEFAULT NULL,
  {machine_alerts.updated_at} timestamp(3) NULL DEFAULT NULL,
  UNIQUE KEY machine_alerts_serial_no_kind_code_unique ({machine_alerts.serial_no}, {machine_alerts.kind}, {machine_alerts.code}),
  KEY machine_alerts_state_next_attempt_at_index ({machine_alerts.state}, {machine_alerts.next_attempt_at})
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE IF NOT EXISTS {listener_progress} (
  {listener_progress.listener} varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  {listener_progress.lane} bigint NOT NULL,
  {listener_progress.epoch} bigint NOT NULL,
  {listener_progress.batch} bigint NOT NULL,
  {listener_progress.size} bigint NOT NULL,
  {listener_progress.lanes} bigint NOT NULL,
  {listener_progress.done} bigint NOT NULL,
  {listener_progress.updated_at} timestamp(3) NULL DEFAULT NULL,
  PRIMARY KEY ({listener_progress.listener}, {listener_progress.lane})
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
