// What bench lets BullMQ do: jobs added in bulk, then processed by a worker that does nothing. One JSON line on standard output says how long each took.
//
// Arguments: port of Redis, number of jobs, jobs of one bulk, jobs at once. It stands in the folder into which bullmq and ioredis were installed.
import { Queue, Worker } from 'bullmq';
import IORedis from 'ioredis';

const [port, jobs, bulk, concurrency] = process.argv.slice(2).map(Number);
const connect = () => new IORedis({ host: '127.0.0.1', port, maxRetriesPerRequest: null });
const seconds = (since) => Number(process.hrtime.bigint() - since) / 1e9;
const name = 'bench';

const queue = new Queue(name, { connection: connect() });
await queue.waitUntilReady();
// Of 100 bytes as JSON.
const text = 'x'.repeat(98);
let begun = process.hrtime.bigint();
for (let added = 0; added < jobs; added += bulk) {
    await queue.addBulk(Array.from({ length: bulk }, () => ({ name: 'job', data: text, opts: { removeOnComplete: true } })));
}
const added = seconds(begun);

const worker = new Worker(name, async () => {}, { connection: connect(), concurrency, autorun: false });
await worker.waitUntilReady();
let done = 0;
const all = new Promise((resolve, reject) => {
    worker.on('completed', () => {
        done += 1;
        if (done === jobs) resolve();
    });
    worker.on('failed', (job, error) => reject(error));
    worker.on('error', reject);
});
begun = process.hrtime.bigint();
worker.run();
await all;
const processed = seconds(begun);
await worker.close();
await queue.obliterate({ force: true });
await queue.close();
console.log(JSON.stringify({ added, processed }));
process.exit(0);
