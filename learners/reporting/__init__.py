"""What a run tells: tables, pictures, TensorBoard, report.json."""
