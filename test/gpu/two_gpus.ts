// Gives the stand-in driver two GPUs. Imported before anything that asks the driver.
//
// This file runs no test.

process.env['INGOT_MOCK_GPUS'] = '2';
