<?php

namespace Sluicegate\Laravel\Tests;

use Illuminate\Support\Facades\DB;
use PDOException;
use Sluicegate\Laravel\Listener\Failure;
use Sluicegate\Laravel\Redis\Connections;
use Sluicegate\Laravel\Tests\Support\Wait;

/** mqtt:listen as a process: what it takes, what it survives, what it leaves. */
final class ListenerTest extends TestCase
{
    private const LIST = 'mqtt_incoming_jobs';

    public function testKill9UnderLoadLosesNothingAndDoublesNothing(): void
    {
        $machines = 5;
        $each = 500;
        foreach (range(1, $machines) as $machine) {
            $id = DB::table('machines')->insertGetId(['serial_no' => "M-{$machine}"]);
            DB::table('machine_slots')->insert(['machine_id' => $id, 'slot_no' => 1, 'stock' => 100000]);
            $lines = array_map(fn ($i) => "{\"transaction_id\":\"T{$i}\",\"slot_no\":1,\"amount\":1.5}\n", range(1, $each));
            file_put_contents("{$this->stage->folder}/sales-{$machine}", implode('', $lines));
            $this->keep($this->stage->publishLines("machine/M-{$machine}/transaction", "{$this->stage->folder}/sales-{$machine}"));
        }
        $all = $machines * $each;
        $kills = 0;
        $steady = $this->listen(['--instance=steady']);
        while (true) {
            $victim = $this->listen(['--instance=victim']);
            // It is at work: then it dies, at any point of it.
            $before = DB::table('transactions')->count();
            if ($before >= $all - 500) {
                break;
            }
            Wait::until('something is done', fn () => DB::table('transactions')->count() > $before + 20);
            usleep(random_int(0, 50_000));
            $victim->kill();
            $kills++;
            if ($kills >= 8) {
                $this->listen(['--instance=victim']);
                break;
            }
        }
        self::assertGreaterThanOrEqual(3, $kills, 'too fast to be killed under load');
        Wait::until('all is done', fn () => DB::table('transactions')->count() >= $all && $this->redis->lLen(self::LIST) === 0
            && $this->redis->keys('*:processing:*') === []);
        self::assertSame($all, DB::table('transactions')->count());
        self::assertSame(array_fill(0, $machines, 100000 - $each), DB::table('machine_slots')->pluck('stock')->all());
        self::assertSame(0, $this->redis->lLen('mqtt_job_dead_letters'));
        self::assertTrue($steady->runs());
    }

    public function testABatchIsOneTransactionAndItsHeartbeatsAreOneStatement(): void
    {
        $machine = DB::table('machines')->insertGetId(['serial_no' => 'M-1']);
        DB::table('machine_slots')->insert(['machine_id' => $machine, 'slot_no' => 1, 'stock' => 50]);
        $entries = [];
        foreach (range(1, 80) as $i) {
            $entries[] = self::entry('heartbeat', 'M-' . $i % 8, "{\"current_page\":{$i}}");
            if ($i % 4 === 0) {
                $entries[] = self::entry('transaction', 'M-1', "{\"transaction_id\":\"T{$i}\",\"slot_no\":1,\"amount\":1}");
            }
        }
        $this->redis->rPush(self::LIST, ...$entries);
        $before = $this->counted();
        $this->listen(['--instance=one', '--stop-when-empty'])->ended();
        $after = $this->counted();
        self::assertSame(20, DB::table('transactions')->count());
        self::assertSame(30, DB::table('machine_slots')->value('stock'));
        self::assertSame(range(73, 80), DB::table('machines')->orderBy('current_page')->pluck('current_page')->all());
        self::assertSame([], $this->redis->keys('*:processing:*'));
        self::assertLessThanOrEqual(4, $after['Com_commit'] - $before['Com_commit'], 'one transaction, and what comes at a start');
        // One of each sale's slot, and one of all heartbeats.
        self::assertSame(20 + 1, $after['Com_update'] - $before['Com_update']);
    }

    public function testOneThatTheDatabaseRefusesIsFoundInItsBatchAndTheOthersStayInOrder(): void
    {
        $ids = [];
        foreach (range(1, 70) as $i) {
            $amount = $i === 23 || $i === 61 ? '1e20' : '1';
            $this->redis->rPush(self::LIST, self::entry('transaction', 'M-1', "{\"transaction_id\":\"T{$i}\",\"slot_no\":1,\"amount\":{$amount}}"));
            $ids[$i] = "T{$i}";
        }
        $this->redis->rPush(self::LIST, 'not JSON');
        unset($ids[23], $ids[61]);
        $this->listen(['--instance=one', '--stop-when-empty'])->ended();
        self::assertSame(array_values($ids), DB::table('transactions')->orderBy('id')->pluck('transaction_id')->all());
        self::assertSame(68, DB::table('machine_logs')->where('code', 'slot-unknown')->count());
        $letters = array_map(fn ($letter) => json_decode($letter, true), $this->redis->lRange('mqtt_job_dead_letters', 0, -1));
        self::assertSame([3, 3, 1], array_column($letters, 'attempts'));
        self::assertSame([], $this->redis->keys('*:processing:*'));
    }

    public function testARestartGoesOnWithWhatStoodUnderWay(): void
    {
        // As a listener leaves it that was killed after it took these.
        foreach ([1, 2, 3] as $page) {
            $this->redis->rPush('{' . self::LIST . '}:processing:laravel-one', self::entry('heartbeat', 'M-1', "{\"current_page\":{$page}}"));
        }
        $this->redis->rPush(self::LIST, self::entry('heartbeat', 'M-1', '{"current_page":4}'));
        $this->listen(['--instance=one', '--stop-when-empty'])->ended();
        // In their order: all are of one second.
        self::assertSame(4, DB::table('machines')->value('current_page'));
        self::assertSame([], $this->redis->keys('*:processing:*'));
    }

    public function testWhatAnInstanceLeftIsTakenOverOnceItsLeaseRanOut(): void
    {
        $left = fn (string $instance) => '{' . self::LIST . "}:processing:{$instance}";
        $lease = fn (string $instance) => '{' . self::LIST . "}:lease:{$instance}";
        foreach (['laravel-gone', 'laravel-busy', 'backend-1'] as $instance) {
            $this->redis->sAdd('{' . self::LIST . '}:instances', $instance);
            $this->redis->rPush($left($instance), self::entry('heartbeat', $instance, '{}'));
        }
        $this->redis->set($lease('laravel-busy'), '1', ['px' => 60000]);
        $this->listen(['--instance=one', '--stop-when-empty'])->ended();
        self::assertSame(['laravel-gone'], DB::table('machines')->pluck('serial_no')->all());
        // One holds its lease; the other is another program's, which knows what of it is committed.
        self::assertSame(1, $this->redis->lLen($left('laravel-busy')));
        self::assertSame(1, $this->redis->lLen($left('backend-1')));
        self::assertSame(['backend-1', 'laravel-busy', 'laravel-one'], $this->sorted($this->redis->sMembers('{' . self::LIST . '}:instances')));
    }

    public function testOfTwoWithOneNameTheNewerHasTheJobsAndTheOlderWaits(): void
    {
        $older = $this->listen(['--instance=one'], ['SLUICEGATE_TEST_LEASE' => '3']);
        Wait::until('it has the lease', fn () => $this->redis->exists('{' . self::LIST . '}:lease:laravel-one'));
        $newer = $this->listen(['--instance=one'], ['SLUICEGATE_TEST_LEASE' => '3']);
        Wait::until('the older says so', fn () => str_contains($this->log(), 'a newer process has the name `laravel-one`'));
        self::assertTrue($older->runs());
        $newer->signal(SIGTERM);
        $newer->ended();
        $this->redis->rPush(self::LIST, self::entry('heartbeat', 'M-1', '{}'));
        Wait::until('the older has the jobs again', fn () => DB::table('machines')->exists());
    }

    public function testASignalEndsItInOrderAndTheLeaseIsGivenBack(): void
    {
        $listener = $this->listen(['--instance=one']);
        Wait::until('it has the lease', fn () => $this->redis->exists('{' . self::LIST . '}:lease:laravel-one'));
        $listener->signal(SIGTERM);
        $listener->ended();
        self::assertStringContainsString('Ended after 0 jobs.', $listener->log());
        self::assertSame(0, $this->redis->exists('{' . self::LIST . '}:lease:laravel-one'));
    }

    public function testQueueRestartEndsItToo(): void
    {
        $listener = $this->listen(['--instance=one'], ['SLUICEGATE_TEST_LEASE' => '3']);
        Wait::until('it has the lease', fn () => $this->redis->exists('{' . self::LIST . '}:lease:laravel-one'));
        $this->artisan('queue:restart');
        $listener->ended();
        self::assertStringContainsString('Ended after', $listener->log());
    }

    public function testAnIdleListOutlastsTheReadTimeOut(): void
    {
        // PHP's own time-out of a read, which phpredis takes where it is told none, is shorter than a look at the list.
        $listener = $this->listen(['--instance=one'], [], ['-d', 'default_socket_timeout=1']);
        Wait::until('it has waited for longer', fn () => $this->idle() > 3 * 2);
        $this->redis->rPush(self::LIST, self::entry('heartbeat', 'M-1', '{}'));
        Wait::until('it takes what comes', fn () => DB::table('machines')->exists());
        self::assertStringNotContainsString('Redis is away', $this->log());
        self::assertTrue($listener->runs());
    }

    public function testPredisDoesAsWellAsPhpRedis(): void
    {
        $this->redis->rPush(self::LIST, "\xff", self::entry('heartbeat', 'M-1', '{}'));
        $others = array_column($this->redis->client('list'), 'id');
        $listener = $this->listen(['--instance=one'], ['REDIS_CLIENT' => 'predis'], ['-d', 'default_socket_timeout=1']);
        Wait::until('it does what is there', fn () => DB::table('machines')->count() === 1);
        // Longer than a look at the list, and than PHP's own time-out. Its connections have no name there.
        Wait::until('it has waited for longer', fn () => array_filter(
            $this->redis->client('list'),
            fn ($client) => ! in_array($client['id'], $others) && $client['cmd'] === 'blmove' && $client['age'] > 4
        ));
        $this->redis->rPush(self::LIST, self::entry('heartbeat', 'M-2', '{}'));
        Wait::until('it takes what comes', fn () => DB::table('machines')->count() === 2);
        self::assertSame(1, $this->redis->lLen('mqtt_job_dead_letters'));
        self::assertStringNotContainsString('Redis is away', $this->log());
        self::assertTrue($listener->runs());
    }

    public function testWhileTheDatabaseIsAwayTheJobsWaitInRedis(): void
    {
        $this->listen(['--instance=one']);
        $this->redis->rPush(self::LIST, self::entry('heartbeat', 'M-1', '{}'));
        Wait::until('it did one', fn () => $this->redis->lLen(self::LIST) === 0 && $this->redis->keys('*:processing:*') === []);
        $this->stage->killDatabase();
        foreach (range(1, 20) as $i) {
            $this->redis->rPush(self::LIST, self::entry('transaction', 'M-1', "{\"transaction_id\":\"T{$i}\",\"slot_no\":1,\"amount\":1}"));
        }
        Wait::until('it says so', fn () => str_contains($this->log(), 'a job waits for what it needs'));
        self::assertSame(20, $this->redis->lLen(self::LIST) + $this->redis->lLen('{' . self::LIST . '}:processing:laravel-one'));
        $this->stage->startDatabase();
        DB::purge();
        Wait::until('all is done', fn () => DB::table('transactions')->count() === 20);
        self::assertSame(0, $this->redis->lLen('mqtt_job_dead_letters'));
    }

    public function testARedisThatRestartsCostsNothing(): void
    {
        $this->listen(['--instance=one']);
        foreach (range(1, 200) as $i) {
            $this->redis->rPush(self::LIST, self::entry('transaction', 'M-1', "{\"transaction_id\":\"T{$i}\",\"slot_no\":1,\"amount\":1}"));
        }
        Wait::until('it is at work', fn () => DB::table('transactions')->exists());
        $this->stage->killRedis();
        Wait::until('it sees that', fn () => str_contains($this->log(), 'Redis is away'));
        $this->stage->startRedis();
        $this->redis = $this->stage->redis();
        Wait::until('all is done', fn () => DB::table('transactions')->count() === 200 && $this->redis->keys('*:processing:*') === []);
        self::assertSame(0, $this->redis->lLen(self::LIST));
    }

    public function testWhatNoAttemptCanDoIsADeadLetterWithTheReasonAndTheRestGoesOn(): void
    {
        $entries = [
            'no JSON' => 'not JSON',
            self::entry('greeting', 'M-1', '{}') => 'the type `greeting` has no job in sluicegate.jobs, which has heartbeat, error, transaction',
            self::entry('transaction', 'M-1', '{"transaction_id":"T1","slot_no":1}') => '`amount` is missing; it must be there',
            // What the database does not take: it is tried as often as the settings say.
            self::entry('transaction', 'M-1', '{"transaction_id":"T2","slot_no":1,"amount":1e20}') => 'Out of range value',
            self::entry('transaction', 'M-1', '{"transaction_id":"T3","slot_no":1,"amount":1}') => 'not this one',
        ];
        DB::unprepared("CREATE TRIGGER refusing BEFORE INSERT ON transactions FOR EACH ROW IF NEW.transaction_id = 'T3'
            THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not this one'; END IF");
        foreach (array_keys($entries) as $entry) {
            $this->redis->rPush(self::LIST, $entry);
        }
        $this->redis->rPush(self::LIST, "\xff");
        $this->redis->rPush(self::LIST, self::entry('heartbeat', 'M-1', '{"current_page":9}'));
        $this->listen(['--instance=one', '--stop-when-empty'])->ended();
        self::assertSame(9, DB::table('machines')->value('current_page'));
        $letters = array_map(fn ($letter) => json_decode($letter, true), $this->redis->lRange('mqtt_job_dead_letters', 0, -1));
        self::assertSame(base64_encode("\xff"), array_pop($letters)['job_base64']);
        foreach (array_map(null, $letters, array_keys($entries), $entries) as [$letter, $entry, $reason]) {
            self::assertSame([$entry, self::LIST, 'laravel-one'], [$letter['job'], $letter['list'], $letter['instance']]);
            self::assertStringContainsString($reason, $letter['reason']);
        }
        self::assertSame([1, 1, 1, 3, 3], array_column($letters, 'attempts'));
    }

    public function testWhatTheDatabaseSaysOfAValueIsTheJobsFault(): void
    {
        $isOfTheJob = function (string $state, int $code): bool {
            $exception = new PDOException('refused');
            $exception->errorInfo = [$state, $code, 'refused'];

            return Failure::isOfTheJob($exception);
        };
        // A CHECK of MySQL 8 and of MariaDB, no partition, a view's CHECK OPTION, a trigger's SIGNAL.
        foreach ([['HY000', 3819], ['23000', 4025], ['HY000', 1526], ['44000', 1369], ['45000', 1644]] as $refused) {
            self::assertTrue($isOfTheJob(...$refused), (string) $refused[1]);
        }
        // A deadlock, a wait for a lock, read only, no such column.
        foreach ([['40001', 1213], ['HY000', 1205], ['HY000', 1290], ['42S22', 1054]] as $away) {
            self::assertFalse($isOfTheJob(...$away), (string) $away[1]);
        }
    }

    public function testARedisOverItsLimitIsEmptied(): void
    {
        $this->redis->rPush(self::LIST, self::entry('heartbeat', 'M-1', '{"current_page":9}'), 'not JSON');
        $this->redis->config('SET', 'maxmemory', '1');
        $this->listen(['--instance=one', '--stop-when-empty'])->ended();
        self::assertSame(9, DB::table('machines')->value('current_page'));
        self::assertSame(0, $this->redis->lLen(self::LIST));
        self::assertSame(1, $this->redis->lLen('mqtt_job_dead_letters'));
    }

    public function testAJobThatEndsItsListenerAgainAndAgainIsADeadLetter(): void
    {
        $poison = self::entry('heartbeat', 'POISON', '{}');
        $this->redis->rPush('{' . self::LIST . '}:processing:laravel-one', $poison, self::entry('heartbeat', 'M-1', '{}'));
        $this->redis->hSet('{' . self::LIST . '}:deaths', hash('sha256', $poison), '9');
        $this->listen(['--instance=one', '--stop-when-empty'])->ended();
        self::assertSame(['M-1'], DB::table('machines')->pluck('serial_no')->all());
        self::assertStringContainsString('ended 10 times', $this->redis->lIndex('mqtt_job_dead_letters', 0));
    }

    public function testWithAQueueTheJobsAreTheWorkers(): void
    {
        $environment = ['MQTT_QUEUE_CONNECTION' => 'redis', 'MQTT_QUEUE' => 'machines'];
        foreach ([1, 2, 3] as $i) {
            $this->redis->rPush(self::LIST, self::entry('transaction', 'M-1', "{\"transaction_id\":\"T{$i}\",\"slot_no\":1,\"amount\":1}"));
        }
        $this->listen(['--instance=one', '--stop-when-empty'], $environment)->ended();
        self::assertSame(3, $this->redis->lLen('laravel_database_queues:machines'));
        self::assertSame(0, DB::table('transactions')->count());
        $this->artisan('queue:work', ['connection' => 'redis', '--queue' => 'machines', '--stop-when-empty' => true]);
        self::assertSame(['T1', 'T2', 'T3'], DB::table('transactions')->orderBy('id')->pluck('transaction_id')->all());
    }

    public function testInMaintenanceModeNothingIsTaken(): void
    {
        $this->artisan('down');
        $this->redis->rPush(self::LIST, self::entry('heartbeat', 'M-1', '{}'));
        $listener = $this->listen(['--instance=one']);
        Wait::until('it has the lease', fn () => $this->redis->exists('{' . self::LIST . '}:lease:laravel-one'));
        self::assertSame(1, $this->redis->lLen(self::LIST));
        $this->artisan('up');
        Wait::until('it goes on', fn () => DB::table('machines')->exists());
        self::assertTrue($listener->runs());
    }

    /** @return array<string, int> what the database counts of all connections */
    private function counted(): array
    {
        return array_map('intval', array_column(DB::select("SHOW GLOBAL STATUS LIKE 'Com\\_%'"), 'Value', 'Variable_name'));
    }

    /** For how many seconds the connection stands on which mqtt:listen waits. */
    private function idle(): int
    {
        $ages = array_map(
            fn ($client) => $client['name'] === Connections::BLOCKING ? (int) $client['age'] : 0,
            $this->redis->client('list')
        );

        return max([0, ...$ages]);
    }

    /**
     * @param array<int, string> $values
     *
     * @return array<int, string>
     */
    private function sorted(array $values): array
    {
        sort($values);

        return $values;
    }
}
