// The thread that runs one job of jobs.ts and posts its report.

import { parentPort, workerData } from 'node:worker_threads';
import { type Job, runJob } from './jobs.js';

parentPort?.postMessage(await runJob(workerData as Job));
