<?php

namespace Sluicegate\Laravel\Tests;

use Illuminate\Support\Facades\DB;
use Redis;
use Sluicegate\Laravel\Concerns\ManagesMachineTokens;
use Sluicegate\Laravel\Exceptions\InvalidCommand;
use Sluicegate\Laravel\Exceptions\RedisUnavailable;
use Sluicegate\Laravel\Tokens\MachineTokens;

/** Machines' tokens, in the row and where the broker reads them. */
final class TokensTest extends TestCase
{
    public function testATokenIsIssuedRotatedAndRevokedAsAString(): void
    {
        DB::table('machines')->insert(['serial_no' => 'M-001']);
        $controller = $this->controller();
        $first = $controller->issue('M-001');
        self::assertMatchesRegularExpression('/^[0-9a-f]{64}$/', $first);
        // The plan's format, under the plan's key: without Laravel's prefix and serializer.
        self::assertSame(hash('sha256', $first), $this->redis->get('machine_auth:M-001'));
        self::assertSame(hash('sha256', $first), DB::table('machines')->value('api_token_hash'));
        $second = $controller->rotate('M-001');
        self::assertNotSame($first, $second);
        self::assertSame(hash('sha256', $second), $this->redis->get('machine_auth:M-001'));
        $controller->revoke('M-001');
        self::assertSame(0, $this->redis->exists('machine_auth:M-001'));
        self::assertNull(DB::table('machines')->value('api_token_hash'));
        self::assertSame([], $this->redis->keys('laravel_database_*'));
    }

    public function testAsAHashItIsWhatEmqxReads(): void
    {
        config(['sluicegate.tokens.format' => 'hash']);
        DB::table('machines')->insert(['serial_no' => 'M-001']);
        $token = $this->controller()->issue('M-001');
        self::assertSame(Redis::REDIS_HASH, $this->redis->type('machine_auth:M-001'));
        // EMQX 5: HMGET machine_auth:${username} password_hash is_superuser
        self::assertSame(
            ['password_hash' => hash('sha256', $token), 'is_superuser' => '0'],
            $this->redis->hMGet('machine_auth:M-001', ['password_hash', 'is_superuser'])
        );
    }

    public function testTheFormatIsChangedForAllAtOnce(): void
    {
        DB::table('machines')->insert([['serial_no' => 'M-001'], ['serial_no' => 'M-002'], ['serial_no' => 'M-003']]);
        $tokens = [$this->controller()->issue('M-001'), $this->controller()->issue('M-002')];
        config(['sluicegate.tokens.format' => 'hash']);
        $this->app->forgetInstance(MachineTokens::class);
        self::assertStringContainsString("2 machines' tokens are in Redis", $this->artisan('mqtt:sync-tokens'));
        self::assertSame(hash('sha256', $tokens[1]), $this->redis->hGet('machine_auth:M-002', 'password_hash'));
        self::assertSame(0, $this->redis->exists('machine_auth:M-003'));
    }

    public function testWhereRedisIsAwayNoTokenIsIssued(): void
    {
        DB::table('machines')->insert(['serial_no' => 'M-001']);
        $token = $this->controller()->issue('M-001');
        $this->stage->killRedis();
        try {
            $this->controller()->rotate('M-001');
            self::fail('a token was issued that the broker does not know');
        } catch (RedisUnavailable $exception) {
            self::assertStringContainsString('Redis', $exception->getMessage());
        } finally {
            $this->stage->startRedis();
        }
        self::assertSame(hash('sha256', $token), DB::table('machines')->value('api_token_hash'));
        self::assertSame(hash('sha256', $token), $this->stage->redis()->get('machine_auth:M-001'));
        $this->controller()->rotate('M-001');
    }

    public function testWhoCannotBeAUserNameGetsNone(): void
    {
        foreach (['a/b', '+', '#', "a\n", "a\u{202e}b", 'sluicegate', 'NOBODY'] as $serialNo) {
            try {
                $this->controller()->issue($serialNo);
                self::fail("`{$serialNo}` got a token");
            } catch (InvalidCommand $exception) {
                self::assertStringContainsString('serial number', $exception->getMessage());
            }
        }
        self::assertSame([], $this->redis->keys('machine_auth:*'));
    }

    public function testANameThatOnlyTheDatabaseTakesForAMachinesIsRefused(): void
    {
        DB::statement('ALTER TABLE machines MODIFY serial_no varchar(64) COLLATE utf8mb4_unicode_ci NOT NULL');
        DB::table('machines')->insert(['serial_no' => 'M-001']);
        $token = $this->controller()->issue('M-001');
        foreach (['issue', 'revoke'] as $asked) {
            try {
                $this->controller()->$asked('m-001');
                self::fail("`m-001` is no machine's name, and {$asked} says it was done");
            } catch (InvalidCommand $exception) {
                self::assertStringContainsString('`M-001`', $exception->getMessage());
            }
        }
        self::assertSame(hash('sha256', $token), DB::table('machines')->value('api_token_hash'));
        self::assertSame(['machine_auth:M-001'], $this->redis->keys('machine_auth:*'));
    }

    private function controller(): object
    {
        return new class () {
            use ManagesMachineTokens;

            public function issue(string $serialNo): string
            {
                return $this->issueMachineToken($serialNo);
            }

            public function rotate(string $serialNo): string
            {
                return $this->rotateMachineToken($serialNo);
            }

            public function revoke(string $serialNo): void
            {
                $this->revokeMachineToken($serialNo);
            }
        };
    }
}
