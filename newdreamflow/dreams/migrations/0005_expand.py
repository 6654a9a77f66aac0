from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("dreams", "0004_photos_hires_models"),
    ]

    operations = [
        migrations.AddField(
            model_name="dream",
            name="expand",
            field=models.CharField(blank=True, max_length=10),
        ),
    ]
